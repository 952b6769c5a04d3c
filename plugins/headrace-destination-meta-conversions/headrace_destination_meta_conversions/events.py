"""What happened: events in Meta's form.

https://developers.facebook.com/documentation/ads-commerce/conversions-api/parameters/server-event
https://developers.facebook.com/documentation/ads-commerce/conversions-api/parameters/custom-data
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args
from urllib.parse import urlsplit

from headrace_destination_meta_conversions import apps
from headrace_destination_meta_conversions.people import user_data
from headrace_destination_meta_conversions.settings import ActionSource, MetaConversionsSettings
from headrace_sdk import EventItem, RecordRejected, StandardEvent, commerce
from headrace_sdk.commerce import Product, amount, text, whole

DAY_US = 86_400_000_000
OLDEST_DAYS = 7
OLDEST_STORE_DAYS = 62
"""https://developers.facebook.com/documentation/ads-commerce/conversions-api/using-the-api#event-transaction-time"""
AHEAD_US = 60_000_000
"""Clocks differ; what lies further ahead is none. Meta documents no bound."""

STANDARD = (
    StandardEvent(name="Purchase", names=("Order Completed", "Purchased"), requires=("value", "currency")),
    StandardEvent(name="AddToCart", names=("Product Added", "Added to cart")),
    StandardEvent(name="AddToWishlist", names=("Product Added to Wishlist",)),
    StandardEvent(name="InitiateCheckout", names=("Checkout Started", "Checkout made")),
    StandardEvent(name="AddPaymentInfo", names=("Payment Info Entered",)),
    StandardEvent(name="ViewContent", names=("Product Viewed", "Product List Viewed", "Category viewed")),
    StandardEvent(name="Search", names=("Products Searched", "Search made")),
    StandardEvent(name="CompleteRegistration", names=("Signed Up", "User Registered", "Account Created")),
    StandardEvent(name="Lead", names=("Lead Generated",)),
    StandardEvent(name="Subscribe", names=("Subscription Started",)),
    StandardEvent(name="StartTrial", names=("Trial Started",)),
    StandardEvent(name="Contact"),
    StandardEvent(name="CustomizeProduct"),
    StandardEvent(name="Donate"),
    StandardEvent(name="FindLocation"),
    StandardEvent(name="Schedule"),
    StandardEvent(name="SubmitApplication"),
    StandardEvent(name="PageView"),
)
"""https://developers.facebook.com/docs/meta-pixel/reference#standard-events"""

_ACTION_SOURCES = frozenset(get_args(ActionSource))
_MEMBERSHIP = frozenset({"added_to_segment", "removed_from_segment"})
"""Events of event syncs: the change happened when it was found, however long ago its cause is."""
_DELIVERY = frozenset({"in_store", "curbside", "home_delivery"})
_YES, _NO = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


@dataclass(slots=True)
class Made:
    """An event in Meta's form.

    Attributes:
        data: An entry of `data`.
        remarks: What is not as Meta wants it, though Meta may take it.
    """

    data: dict[str, Any]
    remarks: list[str] = field(default_factory=list)


def make(event: EventItem, settings: MetaConversionsSettings, now_us: int) -> Made:
    """An event in Meta's form.

    Args:
        event: The event with its fields.
        settings: The destination's.
        now_us: The host's clock.

    Raises:
        RecordRejected: It is left out. Meta refuses a whole request for one event that breaks a rule, so what would
            break one is not sent.
    """
    name = _name(event, settings)
    fields = event.fields
    source = _action_source(event, settings)
    happened_us = event.received_at_us if event.name in _MEMBERSHIP else event.timestamp_us
    _check_time(happened_us, source, now_us)
    custom = custom_data(name, event, settings.currency)
    _check_required(name, custom)
    data: dict[str, Any] = {
        "event_name": name,
        "event_time": happened_us // 1_000_000,
        "event_id": text(fields.get("event_id")) or event.message_id,
        "action_source": source,
    }
    for key in ("event_source_url", "referrer_url"):
        if url := _url(fields.get(key)):
            data[key] = url
    data["user_data"] = user_data(fields, timestamp_us=happened_us, hash_user_id=settings.hash_user_id)
    if custom:
        data["custom_data"] = custom
    if source == "app":
        data["app_data"] = apps.app_data(event.context, _truth(fields.get("tracking_allowed")))
    opt_out = _truth(fields.get("opt_out"))
    if opt_out is not None:
        data["opt_out"] = opt_out
    limited = _truth(fields.get("limited_data_use"))
    if settings.limited_data_use if limited is None else limited:
        data["data_processing_options"] = ["LDU"]
        data["data_processing_options_country"] = settings.limited_data_use_country
        data["data_processing_options_state"] = settings.limited_data_use_state
    return Made(data, _remarks(data))


def custom_data(name: str, event: EventItem, currency: str) -> dict[str, Any]:
    """The custom_data of an event.

    Args:
        name: Its name at Meta.
        event: The event.
        currency: What holds for a value without a currency; "" for nothing.
    """
    fields = event.fields
    own = fields.get("custom_data")
    found: dict[str, Any] = dict(own) if isinstance(own, Mapping) else {}
    if event.name in _MEMBERSHIP:
        audience = {key: event.properties.get(key) for key in ("audience_id", "audience_name")}
        found |= {key: value for key, value in audience.items() if value}
    value = amount(fields.get("value"))
    known = {
        "value": value,
        "currency": commerce.currency(fields.get("currency")) or (currency if value is not None else ""),
        **_contents(name, fields),
        "order_id": text(fields.get("order_id")),
        "predicted_ltv": amount(fields.get("predicted_ltv")),
        "net_revenue": amount(fields.get("net_revenue")),
        "search_string": text(fields.get("search_string")) if name == "Search" else "",
        "status": _status(fields.get("status")) if name == "CompleteRegistration" else None,
        "delivery_category": _delivery(fields.get("delivery_category")),
    }
    found |= {key: value for key, value in known.items() if value not in (None, "", [])}
    return found


def _contents(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    products = commerce.products(fields.get("products"))
    given = fields.get("contents")
    contents = _given_contents(given) if isinstance(given, list) else [_content(product) for product in products]
    ids = fields.get("content_ids")
    ids = [found for one in ids if (found := text(one))] if isinstance(ids, list) else [one["id"] for one in contents]
    only = products[0] if len(products) == 1 else None
    items = whole(fields.get("num_items"))
    if items is None and name == "InitiateCheckout" and contents:
        items = sum(one["quantity"] for one in contents)
    return {
        "content_ids": ids,
        "contents": contents,
        "content_type": text(fields.get("content_type")) or ("product" if ids else ""),
        "content_name": text(fields.get("content_name")) or (only.name if only else ""),
        "content_category": text(fields.get("content_category")) or (only.category if only else ""),
        "num_items": items,
    }


def _content(product: Product) -> dict[str, Any]:
    quantity = whole(product.quantity)
    found: dict[str, Any] = {"id": product.id, "quantity": 1 if quantity is None else quantity}
    if product.price is not None:
        found["item_price"] = product.price
    if delivery := _delivery(product.data.get("delivery_category")):
        found["delivery_category"] = delivery
    return found


def _given_contents(given: list[Any]) -> list[dict[str, Any]]:
    """Contents that the sender wrote in Meta's form already; what Meta does not know in them stays."""
    found = []
    for one in given:
        if isinstance(one, Mapping) and (key := text(one.get("id"))):
            quantity = whole(one.get("quantity"))
            found.append({**one, "id": key, "quantity": 1 if quantity is None else quantity})
    return found


def _name(event: EventItem, settings: MetaConversionsSettings) -> str:
    """The event's name at Meta; raises RecordRejected when it is not sent."""
    if event.kind == "track":
        chosen = commerce.event_name(event.name, STANDARD, settings.event_names)
        chosen = event.name if chosen is None else chosen
    else:
        # The name of a page or a screen is none of an event: only the customer can say that it stands for one.
        wanted = (event.name, event.kind) if event.kind in ("page", "screen") else (event.kind,)
        found = (commerce.event_name(one, (), settings.event_names) for one in wanted if one)
        fallback = "PageView" if event.kind == "page" else None
        chosen = next((one for one in found if one is not None), fallback)
    if chosen is None:
        raise RecordRejected(f"{event.kind} events are sent only under a name in the setting event_names")
    if not chosen:
        raise RecordRejected("the setting event_names leaves it out")
    return chosen


def _action_source(event: EventItem, settings: MetaConversionsSettings) -> str:
    given = text(event.fields.get("action_source"))
    if given in _ACTION_SOURCES:
        return given
    return "system_generated" if event.name in _MEMBERSHIP else settings.action_source


def _check_time(happened_us: int, source: str, now_us: int) -> None:
    days = OLDEST_STORE_DAYS if source == "physical_store" else OLDEST_DAYS
    if now_us - happened_us > days * DAY_US:
        raise RecordRejected(f"it happened more than {days} days ago: Meta would refuse the whole request")
    if happened_us - now_us > AHEAD_US:
        raise RecordRejected("it lies in the future")


def _check_required(name: str, custom: Mapping[str, Any]) -> None:
    for standard in STANDARD:
        if standard.name == name:
            for needed in standard.requires:
                if needed not in custom:
                    raise RecordRejected(f"{name} needs {needed}: Meta would refuse the whole request", needed)


def _remarks(data: Mapping[str, Any]) -> list[str]:
    """What Meta asks of events of websites.

    https://developers.facebook.com/documentation/ads-commerce/conversions-api/parameters
    """
    if data["action_source"] != "website":
        return []
    found = []
    if "client_user_agent" not in data["user_data"]:
        found.append("user_agent is missing, which Meta asks of website events")
    if "event_source_url" not in data:
        found.append("event_source_url is missing, which Meta asks of website events")
    return found


def _url(value: Any) -> str:
    """An absolute http address; "" for anything else."""
    url = text(value)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    return url if usable else ""


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    found = text(value).lower()
    return True if found in _YES else False if found in _NO else None


def _status(value: Any) -> bool | str | None:
    return value if isinstance(value, bool) else text(value) or None


def _delivery(value: Any) -> str:
    found = text(value)
    return found if found in _DELIVERY else ""
