"""What connectors' code is seen to do is what it does itself, and not what comes upon it."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.conformance.watching import watched


def makes_garbage() -> list[Any]:
    return [[n] for n in range(20_000)]


def reads_a_clock() -> float:
    return time.perf_counter()


@pytest.fixture
def collections_are_timed() -> Iterator[None]:
    """Garbage is collected all the time, and somebody times it."""

    def timed(phase: str, info: dict[str, int]) -> None:
        time.perf_counter()

    before = gc.get_threshold()
    gc.callbacks.append(timed)
    gc.set_threshold(50, 1, 1)
    yield
    gc.set_threshold(*before)
    gc.callbacks.remove(timed)


@pytest.mark.usefixtures("collections_are_timed")
def test_a_collection_of_garbage_is_nothing_that_the_code_does() -> None:
    with watched(__file__) as seen:
        makes_garbage()
    assert seen.of("clock") == [] and gc.isenabled()
    with watched(__file__) as seen:
        reads_a_clock()
    assert seen.of("clock") == ["perf_counter"]
