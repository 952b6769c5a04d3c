"""What a mapping can fill. Defaults read Segment's spec, so that its events need no mapping."""

from __future__ import annotations

from headrace_sdk import Field, FieldType


def _trait(*names: str) -> str:
    """The first of these traits: as the event says it, else as the person has it."""
    said = [f"event.traits.{name} || event.context.traits.{name}" for name in names]
    return " || ".join([*said, *(f"profile.traits.{name}" for name in names)])


_WHO = (
    Field(name="email", title="E-mail", example=" Ada.Byron@Example.com", normalised="lower case",
          default="event.identifiers.email[0] || event.traits.email || event.context.traits.email "
          "|| event.properties.email || profile.identifiers.email[0] || profile.traits.email"),
    Field(name="phone", title="Phone", example="+49 171 1234567", normalised="E.164 with its plus",
          default="event.identifiers.phone[0] || event.traits.phone || event.context.traits.phone "
          "|| event.properties.phone || profile.identifiers.phone[0] || profile.traits.phone"),
    Field(name="user_id", title="External id", example="u-17", normalised="as it is, up to 255 characters",
          default="event.identifiers.user_id[0] || profile.identifiers.user_id[0]",
          description="Klaviyo's external_id: your own id of the person."),
    Field(name="anonymous_id", title="Anonymous id", anonymous=True, example="d-1",
          default="event.identifiers.anonymous_id[0]",
          description="Events alone: Klaviyo keeps such an event for the person who gets known later."),
    Field(name="first_name", title="First name", default=_trait("first_name", "firstName"), example="Ada"),
    Field(name="last_name", title="Last name", default=_trait("last_name", "lastName"), example="Byron"),
    Field(name="organization", title="Organisation", default=_trait("organization", "company.name", "company")),
    Field(name="title", title="Job title", default=_trait("title")),
    Field(name="image", title="Image", default=_trait("image", "avatar"), description="Address of a picture."),
    Field(name="locale", title="Locale", default=_trait("locale"), description="BCP 47, such as en-GB."),
    Field(name="address1", title="Street", default=_trait("address1", "address.street")),
    Field(name="address2", title="Street, second line", default=_trait("address2", "address.street2")),
    Field(name="city", title="City", default=_trait("city", "address.city"), example="London"),
    Field(name="state", title="State", default=_trait("region", "state", "address.state", "address.region")),
    Field(name="zip", title="Postal code", example="SW1Y 4JH",
          default=_trait("zip", "postal_code", "address.postalCode", "address.zip")),
    Field(name="country", title="Country", default=_trait("country", "address.country"), example="United Kingdom"),
    Field(name="latitude", title="Latitude", default=_trait("latitude"), type=FieldType.NUMBER, example="51.5074"),
    Field(name="longitude", title="Longitude", default=_trait("longitude"), type=FieldType.NUMBER, example="-0.1278"),
    Field(name="timezone", title="Time zone", default=_trait("timezone"), description="Such as Europe/London."),
    Field(name="ip", title="IP address", default="event.context.ip", anonymous=True, example="203.0.113.7"),
    Field(name="profile_properties", title="Properties of the profile", type=FieldType.OBJECT,
          default="event.traits || event.context.traits",
          description="Identify events: name to value, without what has a field of its own."),
    Field(name="email_consent", title="Consent to e-mail", default="profile.consents.email_marketing",
          description="Members of lists: granted or denied.", example="granted"),
    Field(name="sms_consent", title="Consent to SMS", default="profile.consents.sms_marketing",
          description="Members of lists: granted or denied.", example="granted"),
)  # fmt: skip
_WHAT = (
    Field(name="event_id", title="Unique id", default="event.properties.event_id || event.message_id",
          description="Klaviyo records an event of a person, metric and id once."),
    Field(name="value", title="Value", type=FieldType.NUMBER, example="29.9",
          default="event.properties.revenue || event.properties.value || event.properties.total"),
    Field(name="currency", title="Currency", default="event.properties.currency", example="EUR",
          normalised="three upper-case letters by ISO 4217"),
    Field(name="properties", title="Properties", type=FieldType.OBJECT, default="event.properties",
          description="Up to 400, sent as they are."),
)  # fmt: skip

FIELDS = (*_WHO, *_WHAT)
