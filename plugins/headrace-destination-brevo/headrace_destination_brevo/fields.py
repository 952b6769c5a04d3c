"""What a mapping can fill. Defaults read Segment's spec, so that its events need no mapping."""

from __future__ import annotations

from headrace_sdk import Field, FieldType

FIELDS = (
    Field(name="email", title="E-mail", many=True, example=" Ada.Byron@Example.com", normalised="lower case",
          default="event.traits.email || profile.identifiers.email || profile.traits.email || event.properties.email",
          description="The first one counts for events; on a list each is a contact."),
    Field(name="user_id", title="User id", example="u-17",
          default="event.identifiers.user_id[0] || profile.identifiers.user_id[0]",
          description="EXT_ID of the contact."),
    Field(name="phone", title="Phone", example="+49 171 1234567", normalised="E.164 with its plus",
          default="event.traits.phone || profile.identifiers.phone[0] || profile.traits.phone",
          description="SMS of the contact."),
    Field(name="first_name", title="First name", example="Ada",
          default="event.traits.first_name || event.traits.firstName || profile.traits.first_name "
          "|| profile.traits.firstName"),
    Field(name="last_name", title="Last name", example="Byron",
          default="event.traits.last_name || event.traits.lastName || profile.traits.last_name "
          "|| profile.traits.lastName"),
    Field(name="traits", title="Traits", type=FieldType.OBJECT, default="event.traits",
          description="Those that the setting attributes names become attributes of the contact (identify events)."),
    Field(name="properties", title="Properties", type=FieldType.OBJECT, default="event.properties"),
    Field(name="contact_properties", title="Contact properties", type=FieldType.OBJECT,
          description="Attributes of the contact that an event sets, by their names at Brevo."),
)  # fmt: skip
