"""Names of events at vendors, and what people buy, in the form of Segment's e-commerce spec.

Senders write amounts as numbers or as text, a product as an object or as the properties of its event, its id as
`product_id`, `sku` or `id`. These functions read all of it; what cannot be read is left out, never guessed.
https://segment.com/docs/connections/spec/ecommerce/v2/
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from headrace_sdk.manifest import StandardEvent

__all__ = ["Product", "amount", "currency", "event_name", "products", "text", "whole"]

_SEPARATORS = re.compile(r"[\s_.\-]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_LONGEST_NUMBER = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product of an event; what its sender did not say is empty or None.

    Attributes:
        id: `product_id`, else `sku`, else `id`.
        sku: Stock keeping unit.
        name: Name.
        category: Category.
        brand: Brand.
        variant: Variant.
        coupon: Coupon.
        price: Price of one.
        quantity: How many.
        data: All that the sender said.
    """

    id: str
    sku: str = ""
    name: str = ""
    category: str = ""
    brand: str = ""
    variant: str = ""
    coupon: str = ""
    price: int | float | None = None
    quantity: int | float | None = None
    data: Mapping[str, Any]


def event_name(name: str, standard: Sequence[StandardEvent], chosen: Mapping[str, str]) -> str | None:
    """The name under which a vendor is sent an event.

    Case, spaces, underscores, dashes and dots of names do not matter, and names that stand for the same standard event
    are one name: what is chosen for "Order Completed" holds for "Purchased".

    Args:
        name: Name of the event.
        standard: The manifest's `events`.
        chosen: Names that the customer chose, by name of the event.

    Returns:
        The customer's choice ("" to leave the event out), else the vendor's name of the standard event that it stands
        for, else None.
    """
    wanted = _folded(name)
    by_name = {_folded(given): becomes.strip() for given, becomes in chosen.items()}
    if wanted in by_name:
        return by_name[wanted]
    for event in standard:
        names = {_folded(other) for other in (event.name, *event.names)}
        if wanted in names:
            return next((by_name[other] for other in by_name if other in names), event.name)
    return None


def products(value: Any) -> tuple[Product, ...]:
    """The products in a list of them, or in one object, such as the properties of "Product Viewed"; without id none."""
    given = value if isinstance(value, list) else [value]
    found = (_product(one) for one in given if isinstance(one, Mapping))
    return tuple(product for product in found if product.id)


def amount(value: Any) -> int | float | None:
    """A finite number, or the one that a text holds; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, str) or len(value) > _LONGEST_NUMBER or not _NUMBER.fullmatch(value.strip()):
        return None
    number = float(value)
    return int(number) if number.is_integer() and "." not in value else number


def whole(value: Any) -> int | None:
    """A whole number, or the one that a text or a decimal holds; None for anything else."""
    number = amount(value)
    return int(number) if number is not None and number == int(number) else None


def currency(value: Any) -> str:
    """Three capital letters by ISO 4217; "" for anything else."""
    found = value.strip() if isinstance(value, str) else ""
    return found.upper() if _CURRENCY.fullmatch(found) else ""


def text(value: Any) -> str:
    """A text or number as text without white space around it; "" for anything else, empty lists among it."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _product(given: Mapping[str, Any]) -> Product:
    return Product(
        id=text(given.get("product_id")) or text(given.get("sku")) or text(given.get("id")),
        sku=text(given.get("sku")),
        name=text(given.get("name")),
        category=text(given.get("category")),
        brand=text(given.get("brand")),
        variant=text(given.get("variant")),
        coupon=text(given.get("coupon")),
        price=amount(given.get("price")),
        quantity=amount(given.get("quantity")),
        data=given,
    )


@lru_cache(maxsize=4_096)  # a workspace has some hundred names, and each comes millions of times
def _folded(name: str) -> str:
    return _SEPARATORS.sub("", name).casefold()
