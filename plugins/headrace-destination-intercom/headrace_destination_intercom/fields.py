"""What a mapping can fill. Defaults read Segment's spec, so that its events need no mapping."""

from __future__ import annotations

from headrace_sdk import Field, FieldType


def _trait(*names: str) -> str:
    """The first of these traits: as the event says it, else as the person has it."""
    said = [f"event.traits.{name} || event.context.traits.{name}" for name in names]
    return " || ".join([*said, *(f"profile.traits.{name}" for name in names)])


FIELDS = (
    Field(name="user_id", title="External id", example="u-17", normalised="as it is, up to 255 characters",
          default="event.identifiers.user_id[0] || profile.identifiers.user_id[0]",
          description="Intercom's external_id: your own id of the person."),
    Field(name="email", title="E-mail", example=" Ada.Byron@Example.com", normalised="lower case",
          default="event.identifiers.email[0] || event.traits.email || event.context.traits.email "
          "|| event.properties.email || profile.identifiers.email[0] || profile.traits.email"),
    Field(name="phone", title="Phone", example="+49 171 1234567", normalised="E.164 with its plus",
          default="event.identifiers.phone[0] || event.traits.phone || event.context.traits.phone "
          "|| profile.identifiers.phone[0] || profile.traits.phone"),
    Field(name="name", title="Name", default=_trait("name"), description="Else first and last name."),
    Field(name="first_name", title="First name", default=_trait("first_name", "firstName"), example="Ada"),
    Field(name="last_name", title="Last name", default=_trait("last_name", "lastName"), example="Byron"),
    Field(name="avatar", title="Avatar", default=_trait("avatar"), description="Address of a picture."),
    Field(name="signed_up_at", title="Signed up", type=FieldType.TIME, default=_trait("createdAt", "created_at"),
          example="2026-01-31T08:15:30Z"),
    Field(name="email_consent", title="Consent to e-mail", default="profile.consents.email_marketing",
          example="granted",
          description="denied unsubscribes the contact from e-mails, granted lifts that; else nothing is said."),
    Field(name="custom_attributes", title="Custom attributes", type=FieldType.OBJECT,
          default="event.traits || event.context.traits",
          description="Identify events: name to value, without what has a field of its own. Intercom must have them."),
    Field(name="metadata", title="Metadata", type=FieldType.OBJECT, default="event.properties",
          description="Of the event: texts, numbers, booleans, and amounts and links as Intercom has them."),
)  # fmt: skip
