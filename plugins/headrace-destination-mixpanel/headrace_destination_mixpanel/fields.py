"""What a mapping can fill. Defaults read Segment's spec, so that its events need no mapping."""

from __future__ import annotations

from headrace_sdk import Field, FieldType

_WHO = (
    Field(name="user_id", title="User id", many=True, example="u-17",
          default="event.identifiers.user_id[0] || profile.identifiers.user_id",
          description="$user_id, which Mixpanel takes as the distinct id. The first one counts for events; for list "
          "syncs each makes a row."),
    Field(name="anonymous_id", title="Device id", anonymous=True, default="event.identifiers.anonymous_id[0]",
          description="$device_id: joined to the user id by the first event that has both."),
    Field(name="email", title="E-mail", example="ada@example.com",
          default="event.traits.email || profile.identifiers.email[0] || profile.traits.email"),
    Field(name="phone", title="Phone", example="+491711234567",
          default="event.traits.phone || profile.identifiers.phone[0] || profile.traits.phone",
          description="With a plus, else Mixpanel puts a country code before it."),
    Field(name="first_name", title="First name",
          default="event.traits.first_name || event.traits.firstName || profile.traits.first_name "
          "|| profile.traits.firstName"),
    Field(name="last_name", title="Last name",
          default="event.traits.last_name || event.traits.lastName || profile.traits.last_name "
          "|| profile.traits.lastName"),
    Field(name="name", title="Name", default="event.traits.name || profile.traits.name"),
    Field(name="avatar", title="Picture", default="event.traits.avatar || profile.traits.avatar"),
    Field(name="created_at", title="Created",
          default="event.traits.created_at || event.traits.createdAt || profile.traits.created_at "
          "|| profile.traits.createdAt"),
    Field(name="traits", title="Traits", type=FieldType.OBJECT, default="event.traits",
          description="Profile properties of identify events, properties of a group's profile."),
    Field(name="group_id", title="Group id", default="event.group_id || event.context.groupId",
          description="Of group events; of events in a group: their property called like the group key."),
)  # fmt: skip
_WHAT = (
    Field(name="event_id", title="Event id", default="event.message_id", normalised="36 of letters, digits and dashes",
          description="$insert_id: Mixpanel counts an event of a name, time, distinct id and $insert_id once."),
    Field(name="properties", title="Properties", type=FieldType.OBJECT, default="event.properties"),
    Field(name="context", title="Context", type=FieldType.OBJECT, default="event.context",
          description="Page, campaign, device, operating system and app, sent under Mixpanel's names."),
    Field(name="ip", title="IP address", default="event.context.ip", anonymous=True,
          description="Mixpanel makes city, region and country of it and does not keep it. Without one it makes none."),
)  # fmt: skip

FIELDS = (*_WHO, *_WHAT)
