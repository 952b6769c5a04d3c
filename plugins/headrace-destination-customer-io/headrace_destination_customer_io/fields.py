"""What a mapping can fill. Defaults read Segment's spec, so that its events need no mapping."""

from __future__ import annotations

from headrace_sdk import Field, FieldType

FIELDS = (
    Field(name="user_id", title="User id", many=True, example="u-17",
          default="event.identifiers.user_id[0] || profile.identifiers.user_id",
          description="The person's id at Customer.io. The first counts for events; in a segment each is a person."),
    Field(name="email", title="E-mail", many=True, example="ada@example.com",
          default="event.traits.email || profile.identifiers.email || profile.traits.email"),
    Field(name="anonymous_id", title="Anonymous id", anonymous=True, default="event.identifiers.anonymous_id[0]",
          description="Events of nobody known go by it; identify events give it to the person, who then gets them."),
    Field(name="phone", title="Phone", default="event.traits.phone || profile.identifiers.phone[0]",
          example="+491711234567"),
    Field(name="first_name", title="First name", default="event.traits.first_name || event.traits.firstName"),
    Field(name="last_name", title="Last name", default="event.traits.last_name || event.traits.lastName"),
    Field(name="created_at", title="Created", default="event.traits.created_at || event.traits.createdAt",
          normalised="seconds since 1970"),
    Field(name="traits", title="Traits", type=FieldType.OBJECT, default="event.traits",
          description="Attributes of the person (identify events) or of the object (group events)."),
    Field(name="unsubscribed", title="Unsubscribed", type=FieldType.BOOLEAN, default="event.traits.unsubscribed",
          description="True takes the person off all messages that need a subscription."),
    Field(name="group_id", title="Group id", default="event.group_id"),
    Field(name="event_id", title="Event id", default="event.message_id", normalised="a ULID made of it and the time",
          description="Customer.io ignores an event whose id it has had."),
    Field(name="properties", title="Properties", type=FieldType.OBJECT, default="event.properties"),
    Field(name="page_url", title="Page address", default="event.properties.url || event.context.page.url",
          description="Name of a page view that has none."),
)  # fmt: skip
