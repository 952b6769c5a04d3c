"""Parameters of an event: its own by Google's names, its products, and what else the properties hold.

Limits: https://developers.google.com/analytics/devguides/collection/protocol/ga4/sending-events . Longer limits of the
page's parameters: https://support.google.com/firebase/answer/6317485
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace_destination_google_analytics_4.events import Known, cleaned, takes_param, takes_user_property

MOST_PARAMS = 25
MOST_USER_PROPERTIES = 25
MOST_CUSTOM_ITEM_PARAMS = 27
LONGEST_VALUE = 100
LONGEST_USER_PROPERTY = 36
_LONGER = {"page_location": 1000, "page_referrer": 420, "page_title": 300}

PAGE = ("page_location", "page_referrer", "page_title")
_NUMBERS = frozenset({"value", "tax", "shipping", "price", "quantity", "index", "discount", "engagement_time_msec"})
_TEXTS = frozenset(
    {"transaction_id", "item_id", "promotion_id", "group_id", "content_id", "item_list_id", "coupon", "location_id"}
)

_READ_FOR = {
    "transaction_id": ("order_id", "orderId"),
    "value": ("revenue", "total"),
    "payment_type": ("payment_method",),
    "shipping_tier": ("shipping_method",),
    "items": ("products",),
    "item_list_id": ("list_id",),
    "item_list_name": ("list", "category"),
    "promotion_name": ("name",),
    "creative_name": ("creative",),
    "creative_slot": ("position",),
    "search_term": ("query",),
    "method": ("share_via",),
    "item_id": ("product_id", "cart_id"),
    "page_location": ("url",),
    "page_referrer": ("referrer",),
    "page_title": ("title",),
}
"""Parameter to the properties that its default expression reads: not sent again under their own names."""
_ENVELOPE = frozenset(
    {"client_id", "app_instance_id", "user_id", "session_id", "engagement_time_msec", "products", "items", "path"}
)
_ITEM = {
    "product_id": "item_id", "sku": "item_id", "item_id": "item_id", "name": "item_name", "item_name": "item_name",
    "brand": "item_brand", "item_brand": "item_brand", "category": "item_category", "item_category": "item_category",
    "variant": "item_variant", "item_variant": "item_variant", "position": "index", "index": "index",
    "price": "price", "quantity": "quantity", "coupon": "coupon", "discount": "discount",
    "affiliation": "affiliation", "list_id": "item_list_id", "item_list_id": "item_list_id",
    "item_list_name": "item_list_name", "location_id": "location_id",
    "item_category2": "item_category2", "item_category3": "item_category3", "item_category4": "item_category4",
    "item_category5": "item_category5", "promotion_id": "promotion_id", "promotion_name": "promotion_name",
    "creative_name": "creative_name", "creative_slot": "creative_slot",
}  # fmt: skip
"""Member of a product to Google's name for it; of several with one name the first wins."""
_NOT_OF_ITEMS = frozenset({"url", "image_url", "currency", "value"})


@dataclass(slots=True)
class Remarks:
    """What could not be sent as it is, for one event.

    Attributes:
        cut: Names of parameters whose text is longer than Google takes.
        left_out: Names that Google does not take, or whose value is none that it takes.
        too_many: Names beyond the limit.
    """

    cut: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    too_many: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """All of it in a sentence; empty when there is nothing to say."""
        parts = []
        for names, text in (
            (self.cut, "cut to the length that Google takes"),
            (self.left_out, "left out, as Google takes no such name or value"),
            (self.too_many, f"left out, as Google takes {MOST_PARAMS} parameters"),
        ):
            if names:
                shown = sorted(set(names))
                more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
                parts.append(f"{text}: {', '.join(name[:40] for name in shown[:5])}{more}")
        return "; ".join(parts)


def params_of(event: Known, fields: Mapping[str, Any], *, is_app: bool, remarks: Remarks) -> dict[str, Any]:
    """The parameters of an event.

    Args:
        event: What Google knows of it.
        fields: The connector's fields.
        is_app: True for app streams, which have no pages.
        remarks: Takes what could not be sent as it is.
    """
    found: dict[str, Any] = {}
    own = (*event.params, *(() if is_app else PAGE))
    for name in own:
        if name != "items" and fields.get(name) is not None:
            _put(found, name, fields[name], remarks)
    items = _items(event, fields, remarks)
    if items:
        found["items"] = items
    for name in ("session_id", "engagement_time_msec"):
        if fields.get(name) is not None:
            _put(found, name, fields[name], remarks)
    further = fields.get("params")
    if isinstance(further, Mapping):
        about_item = set(_ITEM) | _NOT_OF_ITEMS if items and event.about_one else set()
        _add_further(found, further, _ENVELOPE | about_item | _sent_already(own, found, further), remarks)
    return found


def user_properties_of(given: Any, remarks: Remarks) -> dict[str, Any]:
    """User properties as Google takes them: name to {"value"}."""
    found: dict[str, Any] = {}
    for name, value in given.items() if isinstance(given, Mapping) else ():
        clean = cleaned(str(name))
        scalar = _scalar(value)
        if scalar is None or not takes_user_property(clean) or len(found) >= MOST_USER_PROPERTIES:
            remarks.left_out.append(clean)
            continue
        if isinstance(scalar, str) and len(scalar) > LONGEST_USER_PROPERTY:
            remarks.cut.append(clean)
            scalar = scalar[:LONGEST_USER_PROPERTY]
        found[clean] = {"value": scalar}
    return found


def number(value: Any) -> int | float | None:
    """A number, also one that is written as text; None when it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            return None
        value = int(value) if math.isfinite(value) and value.is_integer() and abs(value) < 1e15 else value
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _put(found: dict[str, Any], name: str, value: Any, remarks: Remarks) -> None:
    """Put a parameter by Google's name, in the type that Google documents for it."""
    sent: Any = number(value) if name in _NUMBERS else _scalar(value)
    if name in _TEXTS and isinstance(sent, int | float):
        sent = str(sent)
    if name == "currency" and isinstance(sent, str):
        sent = sent.strip().upper()
    if sent is None or sent == "":
        remarks.left_out.append(name)
        return
    longest = _LONGER.get(name, LONGEST_VALUE)
    if isinstance(sent, str) and len(sent) > longest:
        remarks.cut.append(name)
        sent = sent[:longest]
    found[name] = sent


def _add_further(found: dict[str, Any], further: Mapping[str, Any], taken: Collection[str], remarks: Remarks) -> None:
    """Add what is not sent yet, up to the number that Google takes."""
    for name, value in further.items():
        clean = cleaned(str(name))
        if name in taken or clean in found or value is None or value == "":
            continue
        if not takes_param(clean) or str(name).startswith("_"):
            remarks.left_out.append(str(name))
        elif len(found) >= MOST_PARAMS:
            remarks.too_many.append(clean)
        else:
            _put(found, clean, value, remarks)


def _sent_already(own: Iterable[str], found: Mapping[str, Any], further: Mapping[str, Any]) -> set[str]:
    """Properties whose value already goes as one of the event's own parameters."""
    return {
        name
        for param in own
        for name in _READ_FOR.get(param, ())
        if param in found and name in further and _same(further[name], found[param])
    }


def _same(given: Any, sent: Any) -> bool:
    if isinstance(given, str) and isinstance(sent, str):
        return given.startswith(sent)
    return bool(given == sent) or str(given) == str(sent) or (number(given) is not None and number(given) == sent)


def _items(event: Known, fields: Mapping[str, Any], remarks: Remarks) -> list[dict[str, Any]]:
    """The products of an event."""
    given = fields.get("items")
    if isinstance(given, list):
        return [item for item in (_item(product, remarks) for product in given) if item]
    if not event.about_one:
        return []
    product = fields.get("product")
    item = _item(product, remarks, only_known=True) if isinstance(product, Mapping) else {}
    return [item] if "item_id" in item or "item_name" in item else []


def _item(product: Any, remarks: Remarks, *, only_known: bool = False) -> dict[str, Any]:
    """A product by Google's names; others of its members go along as custom item parameters."""
    found: dict[str, Any] = {}
    if not isinstance(product, Mapping):
        return found
    for name, sent_as in _ITEM.items():
        if sent_as not in found and product.get(name) is not None:
            _put(found, sent_as, product[name], remarks)
    if only_known:
        return found
    custom = 0
    for name, value in product.items():
        clean = cleaned(str(name))
        if name in _ITEM or name in _NOT_OF_ITEMS or clean in found or _scalar(value) is None:
            continue
        if takes_param(clean) and custom < MOST_CUSTOM_ITEM_PARAMS:
            _put(found, clean, value, remarks)
            custom += 1
    return found


def _scalar(value: Any) -> str | int | float | bool | None:
    """A value that Google takes; None for lists, objects and what is no number."""
    if isinstance(value, str | bool):
        return value
    return value if isinstance(value, int | float) and math.isfinite(value) else None
