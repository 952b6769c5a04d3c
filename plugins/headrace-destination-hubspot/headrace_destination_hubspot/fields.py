"""What a mapping can fill. Defaults read Segment's spec, so that its events need no mapping."""

from __future__ import annotations

from headrace_sdk import Field, FieldType


def _trait(*names: str) -> str:
    """The first of these traits: as the event says it, else as the person has it."""
    said = [f"event.traits.{name} || event.context.traits.{name}" for name in names]
    return " || ".join([*said, *(f"profile.traits.{name}" for name in names)])


FIELDS = (
    Field(name="email", title="E-mail", example=" Ada.Byron@Example.com", normalised="lower case",
          default="event.identifiers.email[0] || event.traits.email || event.context.traits.email "
          "|| event.properties.email || profile.identifiers.email[0] || profile.traits.email",
          description="By which HubSpot knows a contact."),
    Field(name="utk", title="Visitor", anonymous=True,
          default="event.context.hubspotutk || event.properties.hubspotutk",
          description="Events alone: the cookie hubspotutk, for visitors without an e-mail address."),
    Field(name="first_name", title="First name", default=_trait("first_name", "firstName"), example="Ada"),
    Field(name="last_name", title="Last name", default=_trait("last_name", "lastName"), example="Byron"),
    Field(name="phone", title="Phone", example="+49 171 1234567",
          default="event.identifiers.phone[0] || event.traits.phone || event.context.traits.phone "
          "|| profile.identifiers.phone[0] || profile.traits.phone"),
    Field(name="company", title="Company", default=_trait("company.name", "company")),
    Field(name="title", title="Job title", default=_trait("title")),
    Field(name="website", title="Website", default=_trait("website")),
    Field(name="address", title="Street", default=_trait("address.street", "address1")),
    Field(name="city", title="City", default=_trait("city", "address.city"), example="London"),
    Field(name="state", title="State", default=_trait("state", "region", "address.state")),
    Field(name="zip", title="Postal code", example="SW1Y 4JH",
          default=_trait("zip", "postal_code", "address.postalCode")),
    Field(name="country", title="Country", default=_trait("country", "address.country"), example="United Kingdom"),
    Field(name="contact_properties", title="Further properties", type=FieldType.OBJECT,
          description="Internal name to value, such as {plan: event.traits.plan}. HubSpot must have these properties."),
    Field(name="event_id", title="Event id", default="event.properties.event_id || event.message_id",
          description="HubSpot's uuid of the event."),
    Field(name="properties", title="Properties", type=FieldType.OBJECT, default="event.properties",
          description="Of the event: up to 50, as text. HubSpot keeps those that the event's definition has."),
)  # fmt: skip
