"""Names of events at vendors, and orders and products as senders write them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace_sdk import StandardEvent, commerce

EVENTS = (
    StandardEvent(name="Purchase", names=("Order Completed", "Purchased")),
    StandardEvent(name="ViewContent", names=("Product Viewed", "Product List Viewed")),
)


@pytest.mark.parametrize(
    ("name", "chosen", "found"),
    [
        ("Order Completed", {}, "Purchase"),
        ("order_completed", {}, "Purchase"),
        ("Purchase", {}, "Purchase"),
        ("Quiz taken", {}, None),
        ("Quiz taken", {"quiz-taken": " Quiz "}, "Quiz"),
        ("Purchased", {"Order Completed": "MyOrder"}, "MyOrder"),
        ("Purchased", {"Order Completed": ""}, ""),
        ("Product Viewed", {"Product List Viewed": "Listed", "Product Viewed": "Seen"}, "Seen"),
        ("Product Viewed", {"Order Completed": "MyOrder"}, "ViewContent"),
    ],
)
def test_names_of_events(name: str, chosen: dict[str, str], found: str | None) -> None:
    assert commerce.event_name(name, EVENTS, chosen) == found


@pytest.mark.parametrize(
    ("value", "amount", "whole"),
    [
        (19.9, 19.9, None), (3, 3, 3), (3.0, 3.0, 3), ("19.90", 19.9, None), (" 7 ", 7, 7), ("7.0", 7.0, 7),
        ("1e3", 1000, 1000), (-5, -5, -5), (True, None, None), (None, None, None), ("", None, None), ("x", None, None),
        ("1,99", None, None), ("١", None, None), ("nan", None, None), ("inf", None, None), (math.nan, None, None),
        (math.inf, None, None), ("1" * 40, None, None), ([1], None, None),
    ],
)  # fmt: skip
def test_amounts(value: Any, amount: float | None, whole: int | None) -> None:
    found = commerce.amount(value)
    assert found == amount and type(found) is type(amount)
    assert commerce.whole(value) == whole


@pytest.mark.parametrize(
    ("value", "found"), [("eur", "EUR"), (" USD ", "USD"), ("Euro", ""), ("€", ""), (None, ""), (7, "")]
)
def test_currencies(value: Any, found: str) -> None:
    assert commerce.currency(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [(" a ", "a"), (7, "7"), (7.0, "7"), (7.5, "7.5"), (True, ""), (None, ""), ([], ""), ({}, "")],
)
def test_texts(value: Any, found: str) -> None:
    assert commerce.text(value) == found


def test_products_are_read_from_lists_and_from_properties() -> None:
    shoe = {"product_id": 7, "sku": "S", "name": "Shoe", "price": "9.50", "quantity": "2", "brand": "B", "size": 9}
    (product,) = commerce.products([shoe, {"name": "no id"}, "x", None])
    assert product == commerce.Product(
        id="7", sku="S", name="Shoe", brand="B", price=9.5, quantity=2, data=shoe
    )  # fmt: skip
    assert [one.id for one in commerce.products({"sku": "S"})] == ["S"]
    assert [one.id for one in commerce.products([{"id": "I"}, {"sku": "", "product_id": "P"}])] == ["I", "P"]
    nothings: tuple[Any, ...] = (None, {}, [], "x", 7, [[shoe]])
    for nothing in nothings:
        assert commerce.products(nothing) == ()
