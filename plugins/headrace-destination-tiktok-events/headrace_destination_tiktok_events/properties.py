"""What an event is about: value, currency and products, as TikTok names them.

https://ads.tiktok.com/help/article/standard-events-parameters
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_sdk.commerce import amount, currency, text, whole

_PRODUCT = "product"
_ABOUT_ONE = frozenset({"AddToCart", "AddToWishlist", "CustomizeProduct", "ViewContent"})
"""Events that may be about one product, which stands in the properties themselves."""
_TEXTS = ("order_id", "query", "description", "status", "shop_id")


def properties_of(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The object `properties` of an event.

    Args:
        name: TikTok's name of the event.
        fields: The connector's fields.
    """
    found: dict[str, Any] = {}
    further = fields.get("custom_properties")
    if isinstance(further, Mapping):
        found |= {key: value for key, value in further.items() if value is not None}
    content_type = text(fields.get("content_type"))
    contents = _contents(name, fields, content_type or _PRODUCT)
    if contents:
        found["contents"] = contents
    if content_type or contents:
        found["content_type"] = content_type or _PRODUCT
    value = amount(fields.get("value"))
    if value is None:
        value = _sum(contents)
    if value is not None:
        found["value"] = value
    if code := currency(fields.get("currency")):
        found["currency"] = code
    for key in _TEXTS:
        if given := text(fields.get(key)):
            found[key] = given
    return found


def _contents(name: str, fields: Mapping[str, Any], content_type: str) -> list[dict[str, Any]]:
    given = fields.get("products")
    if not isinstance(given, list) and name in _ABOUT_ONE:
        given = [fields.get("product")]
    found = [_content(one, content_type) for one in given or () if isinstance(one, Mapping)]
    return [one for one in found if "content_id" in one or (isinstance(fields.get("products"), list) and len(one) > 1)]


def _content(given: Mapping[str, Any], content_type: str) -> dict[str, Any]:
    """A product. Its id is a text, whatever the sender made of it; it is of the event's type unless it says another."""
    names = {
        "content_id": ("content_id", "product_id", "productId", "sku", "id"),
        "content_name": ("content_name", "name"),
        "content_category": ("content_category", "category"),
        "brand": ("brand",),
    }
    found: dict[str, Any] = {"content_type": text(given.get("content_type")) or content_type}
    for key, sources in names.items():
        if value := next(filter(None, (text(given.get(source)) for source in sources)), ""):
            found[key] = value
    if (price := amount(given.get("price"))) is not None:
        found["price"] = price
    if (quantity := whole(given.get("quantity"))) is not None:
        found["quantity"] = quantity
    return found


def _sum(contents: list[dict[str, Any]]) -> int | float | None:
    """Sum of prices by quantities, as TikTok's own tag makes it; None unless all products have a price."""
    if not contents or not all("price" in one for one in contents):
        return None
    total: int | float = round(sum(one["price"] * one.get("quantity", 1) for one in contents), 6)
    return total
