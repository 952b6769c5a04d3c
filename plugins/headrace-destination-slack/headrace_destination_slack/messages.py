"""What messages say: templates in which ${path} stands for a field.

Values cannot mention anybody or make links, as Slack's control characters in them are escaped.
https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from headrace_sdk import Field, FieldType

DEFAULT = "*${event}* ${person} ${summary}"
LONGEST = 40_000
"""Characters of a text; Slack cuts what is longer. https://docs.slack.dev/reference/methods/chat.postMessage"""

_PLACE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_HALF_ENTITY = re.compile(r"&[a-z]{0,3}$")
_BLANKS = re.compile(r"[ \t]{2,}")

FIELDS = (
    Field(name="text", title="Text", description="The whole message, in place of the template of the settings."),
    Field(name="channel", title="Channel", description="With a bot token: id of the channel for this event."),
    Field(
        name="person", title="Person", example="ada@example.com", anonymous=True,
        default="profile.identifiers.email[0] || profile.traits.email || event.identifiers.email[0] "
        "|| profile.identifiers.user_id[0] || event.identifiers.user_id[0] || event.identifiers.anonymous_id[0] "
        "|| profile.id",
        description="Who did it: e-mail address, else user id, else anonymous id, else the profile's id.",
    ),
    Field(name="summary", title="Summary", anonymous=True,
          default="event.properties.audience_name || event.properties.audience_id || event.properties.order_id "
          "|| event.properties.title || event.properties.url || event.properties.name",
          description="What it was about: the audience, the order, the page, the product."),
    Field(name="email", title="E-mail", example="ada@example.com",
          default="profile.identifiers.email[0] || profile.traits.email || event.identifiers.email[0]"),
    Field(name="phone", title="Phone", example="+491711234567",
          default="profile.identifiers.phone[0] || profile.traits.phone"),
    Field(name="user_id", title="User id", example="u-1",
          default="profile.identifiers.user_id[0] || event.identifiers.user_id[0]"),
    Field(name="first_name", title="First name", example="Ada",
          default="profile.traits.first_name || profile.traits.firstName"),
    Field(name="last_name", title="Last name", example="Byron",
          default="profile.traits.last_name || profile.traits.lastName"),
    Field(name="order_id", title="Order id", example="T-1001",
          default="event.properties.order_id || event.properties.orderId"),
    Field(name="value", title="Value", type=FieldType.NUMBER, example="29.9",
          default="event.properties.revenue || event.properties.value || event.properties.total"),
    Field(name="currency", title="Currency", default="event.properties.currency", example="EUR"),
    Field(name="audience", title="Audience", example="Loyal customers",
          default="event.properties.audience_name || event.properties.audience_id",
          description="Name of the audience if the event holds one, else its id."),
    Field(name="time", title="Time", type=FieldType.TIME, default="event.timestamp"),
    Field(name="properties", title="Properties", type=FieldType.OBJECT, default="event.properties",
          description="For ${properties.plan} in templates."),
    Field(name="traits", title="Traits", type=FieldType.OBJECT, default="profile.traits || event.traits",
          description="For ${traits.plan} in templates."),
    Field(name="context", title="Context", type=FieldType.OBJECT, default="event.context",
          description="For ${context.page.url} in templates."),
)  # fmt: skip
_KNOWN = frozenset(field.name for field in FIELDS) | {"event"}


def check(template: str) -> None:
    """Look at the places of a template.

    Raises:
        ValueError: A place names no field.
    """
    for match in _PLACE.finditer(template):
        if match[1] is not None and match[1].strip().split(".")[0] not in _KNOWN:
            raise ValueError(f"${{{match[1]}}} is no field; there are: {', '.join(sorted(_KNOWN))}")


def render(template: str, fields: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a message, and whether it was cut.

    Args:
        template: Checked by `check`.
        fields: Values by name, "event" (the event's name) among them.
    """

    def fill(match: re.Match[str]) -> str:
        return "${" if match[1] is None else escaped(_written(_value(fields, match[1].strip())))

    # Places without a value leave blanks behind.
    return cut(_BLANKS.sub(" ", _PLACE.sub(fill, template)).strip())


def cut(text: str) -> tuple[str, bool]:
    """A text that is not too long, and whether something was cut off."""
    if len(text) <= LONGEST:
        return text, False
    return _HALF_ENTITY.sub("", text[: LONGEST - 1]) + "…", True


def escaped(text: str) -> str:
    """A text in which Slack's control characters stand for themselves."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _value(fields: Mapping[str, Any], path: str) -> Any:
    value: Any = fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _written(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
