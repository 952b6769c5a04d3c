"""What is no HTTP request."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.connector import wire
from headrace.plugins.contract import ContractBroken, check_built
from headrace_sdk import Request


def check(**more: Any) -> None:
    values = {"method": "POST", "url": "https://a.example/x?y=%20z", "items": (0,), **more}
    check_built(1, wire.BuiltBatch(requests=(Request(**values),)))


def test_a_plain_request_passes() -> None:
    check(headers={"X-Name": "välue", "Empty": ""})


@pytest.mark.parametrize(
    "more",
    [
        {"method": "BREW"},
        {"method": "post"},
        {"url": ""},
        {"url": "a.example"},
        {"url": "ftp://a.example"},
        {"url": "https://"},
        {"url": "https://a.example/ x"},
        {"url": "https://a.example/\r\nHost: b"},
        {"url": "https://[::1"},
        {"headers": {"": "x"}},
        {"headers": {"A B": "x"}},
        {"headers": {"A:": "x"}},
        {"headers": {"A": "x\ny"}},
        {"headers": {"A": "x\0"}},
        {"headers": {"A": "x\x7f"}},
    ],
)
def test_what_is_none_is_refused_without_its_value(more: dict[str, Any]) -> None:
    with pytest.raises(ContractBroken) as caught:
        check(**more)
    assert "example" not in str(caught.value)
