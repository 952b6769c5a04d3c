"""Names: which event of Google Analytics an event is, and which names Google takes.

https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference (reserved names)
https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference/events (events and parameters)
https://developers.google.com/analytics/devguides/collection/protocol/ga4/sending-events (limits)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from headrace_sdk import EventItem, StandardEvent

LONGEST_NAME = 40
LONGEST_USER_PROPERTY_NAME = 24

PAGE_VIEW = "page_view"
SCREEN_VIEW = "screen_view"
JOIN_GROUP = "join_group"

_MONEY = ("currency", "value")
_LIST = ("item_list_id", "item_list_name")
_PROMOTION = ("promotion_id", "promotion_name", "creative_name", "creative_slot")


@dataclass(frozen=True, slots=True)
class Known:
    """An event that Google recommends.

    Attributes:
        name: As Google spells it.
        names: Names in Segment's spec that stand for it.
        params: Its parameters, which are fields of the connector.
        about_one: True when it may be about one product that stands in the properties themselves.
    """

    name: str
    names: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    about_one: bool = False


KNOWN = (
    Known("add_payment_info", ("Payment Info Entered",), (*_MONEY, "coupon", "payment_type", "items")),
    Known("add_shipping_info", (), (*_MONEY, "coupon", "shipping_tier", "items")),
    Known("add_to_cart", ("Product Added",), (*_MONEY, "items"), about_one=True),
    Known("add_to_wishlist", ("Product Added to Wishlist",), (*_MONEY, "items"), about_one=True),
    Known("begin_checkout", ("Checkout Started",), (*_MONEY, "coupon", "items")),
    Known("generate_lead", ("Lead Generated",), (*_MONEY, "lead_source")),
    Known(JOIN_GROUP, (), ("group_id",)),
    Known("login", ("Signed In",), ("method",)),
    Known(
        "purchase",
        ("Order Completed",),
        (*_MONEY, "transaction_id", "coupon", "shipping", "tax", "customer_type", "items"),
    ),
    Known("refund", ("Order Refunded",), (*_MONEY, "transaction_id", "coupon", "shipping", "tax", "items")),
    Known("remove_from_cart", ("Product Removed",), (*_MONEY, "items"), about_one=True),
    Known("search", ("Products Searched",), ("search_term",)),
    Known("select_content", (), ("content_type", "content_id")),
    Known("select_item", ("Product Clicked",), (*_LIST, "items"), about_one=True),
    Known("select_promotion", ("Promotion Clicked",), (*_PROMOTION, "items")),
    Known("share", ("Product Shared", "Cart Shared"), ("method", "content_type", "item_id")),
    Known("sign_up", ("Signed Up",), ("method",)),
    Known("view_cart", ("Cart Viewed",), (*_MONEY, "items")),
    Known("view_item", ("Product Viewed",), (*_MONEY, "items"), about_one=True),
    Known("view_item_list", ("Product List Viewed",), (*_MONEY, *_LIST, "items")),
    Known("view_promotion", ("Promotion Viewed",), (*_PROMOTION, "items")),
    Known(PAGE_VIEW),
    Known(SCREEN_VIEW, (), ("screen_name", "screen_class")),
)
STANDARD_EVENTS = tuple(StandardEvent(name=known.name, names=known.names) for known in KNOWN)

_BY_NAME = {known.name: known for known in KNOWN}
_BY_SPOKEN = {name.casefold(): known.name for known in KNOWN for name in (*known.names, known.name)}
_RESERVED = frozenset(
    {
        "ad_activeview", "ad_click", "ad_exposure", "ad_query", "ad_reward", "adunit_exposure", "app_clear_data",
        "app_exception", "app_install", "app_remove", "app_store_refund", "app_update", "app_upgrade",
        "dynamic_link_app_open", "dynamic_link_app_update", "dynamic_link_first_open", "error", "firebase_campaign",
        "firebase_in_app_message_action", "firebase_in_app_message_dismiss", "firebase_in_app_message_impression",
        "first_open", "first_visit", "notification_dismiss", "notification_foreground", "notification_open",
        "notification_receive", "notification_send", "os_update", "session_start", "user_engagement",
    }
)  # fmt: skip
_APP_ONLY = frozenset({"ad_impression", "in_app_purchase", SCREEN_VIEW})
_PREFIXES = ("firebase_", "ga_", "google_")
_RESERVED_PARAMS = frozenset({"firebase_conversion"})
_RESERVED_USER_PROPERTIES = frozenset(
    {"first_open_time", "first_visit_time", "last_deep_link_referrer", "user_id", "first_open_after_install"}
)
_BY_KIND = {"page": PAGE_VIEW, "screen": SCREEN_VIEW, "group": JOIN_GROUP}
_NO_NAME = re.compile(r"\W+")


def name_of(event: EventItem, names: Mapping[str, str], *, is_app: bool) -> tuple[str, str]:
    """What an event is called at Google, or why it is not sent: one of both is empty.

    Args:
        event: The event.
        names: Names that the customer chose, by event name, or by "page", "screen" or "group".
        is_app: True for app streams.
    """
    spoken = event.name if event.kind == "track" else event.kind
    chosen = names.get(spoken)
    if chosen is not None and not chosen.strip():
        return "", "the settings leave the event out"
    if chosen is None and event.kind in ("identify", "alias"):
        return "", f"Google Analytics has no {event.kind} events"
    name = cleaned(chosen) if chosen else _BY_KIND.get(event.kind) or _BY_SPOKEN.get(spoken.strip().casefold())
    name = name or cleaned(spoken)
    problem = _problem(name, is_app=is_app)
    return ("", problem) if problem else (name, "")


def known(name: str) -> Known:
    """What is known of an event by Google's name; nothing of a custom one."""
    return _BY_NAME.get(name, Known(name))


def cleaned(name: str) -> str:
    """A name with nothing but letters, digits and underscores."""
    return _NO_NAME.sub("_", name.strip()).strip("_")


def _problem(name: str, *, is_app: bool) -> str:
    """Why Google does not take an event of this name; empty when it does."""
    if not name[:1].isalpha():
        return "the event name must start with a letter"
    if len(name) > LONGEST_NAME:
        return f"the event name is longer than {LONGEST_NAME} characters"
    if name in _RESERVED or name.startswith(_PREFIXES):
        return "the event name is reserved by Google Analytics"
    if name in _APP_ONLY and not is_app:
        return f"{name} is for app streams only"
    return ""


def takes_param(name: str) -> bool:
    """Whether Google takes a parameter of this name."""
    fits = name[:1].isalpha() and len(name) <= LONGEST_NAME
    return fits and name not in _RESERVED_PARAMS and not name.startswith(_PREFIXES)


def takes_user_property(name: str) -> bool:
    """Whether Google takes a user property of this name."""
    fits = name[:1].isalpha() and len(name) <= LONGEST_USER_PROPERTY_NAME
    return fits and name not in _RESERVED_USER_PROPERTIES and not name.startswith(_PREFIXES)
