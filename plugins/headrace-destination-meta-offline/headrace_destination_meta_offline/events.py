"""What happened in a store, by telephone or in a CRM: events of a dataset in Meta's form.

https://developers.facebook.com/documentation/ads-commerce/conversions-api/offline-events
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_destination_meta_offline.people import user_data
from headrace_destination_meta_offline.settings import MetaOfflineSettings
from headrace_sdk import EventItem, RecordRejected, StandardEvent, commerce
from headrace_sdk.commerce import Product, amount, text, whole

ACTION_SOURCE = "physical_store"
"""What Meta asks for "all offline and store events", whatever they are."""
OLDEST_DAYS = 62
"""https://developers.facebook.com/documentation/ads-commerce/conversions-api/using-the-api#event-transaction-time"""
_DAY_US = 86_400_000_000
_AHEAD_US = 60_000_000

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
    StandardEvent(name="Schedule"),
    StandardEvent(name="SubmitApplication"),
)
_DELIVERY = frozenset({"in_store", "curbside", "home_delivery"})
_YES, _NO = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


def make(event: EventItem, settings: MetaOfflineSettings, now_us: int) -> dict[str, Any]:
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
    _check_time(event.timestamp_us, now_us)
    fields = event.fields
    custom = _custom_data(fields, settings.currency)
    _check_required(name, custom)
    data: dict[str, Any] = {
        "event_name": name,
        "event_time": event.timestamp_us // 1_000_000,
        "event_id": text(fields.get("event_id")) or event.message_id,
        "action_source": ACTION_SOURCE,
        "user_data": user_data(fields, hash_user_id=settings.hash_user_id),
    }
    if custom:
        data["custom_data"] = custom
    limited = _truth(fields.get("limited_data_use"))
    if settings.limited_data_use if limited is None else limited:
        data["data_processing_options"] = ["LDU"]
        data["data_processing_options_country"] = settings.limited_data_use_country
        data["data_processing_options_state"] = settings.limited_data_use_state
    return data


def _custom_data(fields: Mapping[str, Any], currency: str) -> dict[str, Any]:
    own = fields.get("custom_data")
    found: dict[str, Any] = dict(own) if isinstance(own, Mapping) else {}
    value = amount(fields.get("value"))
    given = fields.get("contents")
    products = commerce.products(fields.get("products"))
    contents = _given_contents(given) if isinstance(given, list) else [_content(product) for product in products]
    known = {
        "value": value,
        "currency": commerce.currency(fields.get("currency")) or (currency if value is not None else ""),
        "contents": contents,
        "content_type": text(fields.get("content_type")) or ("product" if contents else ""),
        "order_id": text(fields.get("order_id")),
        "item_number": text(fields.get("item_number")),
    }
    found |= {key: value for key, value in known.items() if value not in (None, "", [])}
    return found


def _content(product: Product) -> dict[str, Any]:
    quantity = whole(product.quantity)
    found: dict[str, Any] = {"id": product.id, "quantity": 1 if quantity is None else quantity}
    if product.price is not None:
        found["item_price"] = product.price
    delivery = text(product.data.get("delivery_category"))
    if delivery in _DELIVERY:
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


def _name(event: EventItem, settings: MetaOfflineSettings) -> str:
    """The event's name at Meta; raises RecordRejected when it is not sent."""
    if event.kind != "track":
        raise RecordRejected(f"{event.kind} events are no conversions")
    chosen = commerce.event_name(event.name, STANDARD, settings.event_names)
    if chosen == "":
        raise RecordRejected("the setting event_names leaves it out")
    return event.name if chosen is None else chosen


def _check_time(happened_us: int, now_us: int) -> None:
    if now_us - happened_us > OLDEST_DAYS * _DAY_US:
        raise RecordRejected(f"it happened more than {OLDEST_DAYS} days ago: Meta would refuse the whole request")
    if happened_us - now_us > _AHEAD_US:
        raise RecordRejected("it lies in the future")


def _check_required(name: str, custom: Mapping[str, Any]) -> None:
    for standard in STANDARD:
        if standard.name == name:
            for needed in standard.requires:
                if needed not in custom:
                    raise RecordRejected(f"{name} needs {needed}: Meta would refuse the whole request", needed)


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    found = text(value).lower()
    return True if found in _YES else False if found in _NO else None
