"""What rows are made of: columns of people and of events."""

from __future__ import annotations

from headrace_sdk import Field, FieldType

PERSON = (
    Field(name="email", title="E-mail", example="ada@example.com",
          default="profile.identifiers.email[0] || profile.traits.email || event.identifiers.email[0]"),
    Field(name="phone", title="Phone", example="+491711234567",
          default="profile.identifiers.phone[0] || profile.traits.phone"),
    Field(name="user_id", title="User id", example="u-1",
          default="profile.identifiers.user_id[0] || event.identifiers.user_id[0]"),
    Field(name="anonymous_id", title="Anonymous id", example="a-1", anonymous=True,
          default="profile.identifiers.anonymous_id[0] || event.identifiers.anonymous_id[0]"),
    Field(name="first_name", title="First name", example="Ada",
          default="profile.traits.first_name || profile.traits.firstName"),
    Field(name="last_name", title="Last name", example="Byron",
          default="profile.traits.last_name || profile.traits.lastName"),
    Field(name="company", title="Company", example="Analytical Engines", default="profile.traits.company"),
    Field(name="city", title="City", default="profile.traits.city || profile.traits.address.city", example="London"),
    Field(name="state", title="State", default="profile.traits.state || profile.traits.address.state"),
    Field(name="zip", title="Postal code", example="W1",
          default="profile.traits.zip || profile.traits.postal_code || profile.traits.address.postalCode"),
    Field(name="country", title="Country", example="GB",
          default="profile.traits.country || profile.traits.address.country"),
    Field(name="custom_1", title="First column of your own", description="Whatever the mapping puts there."),
    Field(name="custom_2", title="Second column of your own", description="Whatever the mapping puts there."),
    Field(name="custom_3", title="Third column of your own", description="Whatever the mapping puts there."),
)  # fmt: skip
EVENT = (
    Field(name="order_id", title="Order id", example="T-1001",
          default="event.properties.order_id || event.properties.orderId"),
    Field(name="value", title="Value", type=FieldType.NUMBER, example="29.9",
          default="event.properties.revenue || event.properties.value || event.properties.total"),
    Field(name="currency", title="Currency", default="event.properties.currency", example="EUR"),
    Field(name="audience", title="Audience", example="Loyal customers",
          default="event.properties.audience_name || event.properties.audience_id"),
    Field(name="url", title="Page", default="event.context.page.url || event.properties.url"),
    Field(name="campaign", title="Campaign", default="event.context.campaign.name"),
    Field(name="properties", title="Properties", type=FieldType.OBJECT, default="event.properties",
          description="As JSON."),
)  # fmt: skip
FIELDS = (*PERSON, *EVENT)
PERSON_COLUMNS = tuple(field.name for field in PERSON)
EVENT_COLUMNS = ("time", "event", *(field.name for field in FIELDS))
"""Time and name come from the event itself."""
