from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain import ids, times

FIRST = times.parse_time_us("0001-01-01T00:00:00Z")
LAST = times.parse_time_us("9999-12-31T23:59:59.999999Z")


@given(moment=st.integers(FIRST, LAST))
def test_a_time_written_is_the_time_read(moment: int) -> None:
    assert times.parse_time_us(times.format_time_us(moment)) == moment


def test_zones() -> None:
    assert times.parse_time_us("2026-01-01T01:00:00+01:00") == times.parse_time_us("2026-01-01T00:00:00")


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("36h", 129_600), ("2w", 1_209_600)])
def test_durations(text: str, seconds: int) -> None:
    assert times.parse_duration_us(text) == seconds * times.SECOND_US


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 d", "30D", "1234567890s", "30d ", "٣d"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        times.parse_duration_us(text)


@given(moment=st.integers(0, LAST))
def test_the_floor_of_a_moment_comes_before_ids_made_then(moment: int) -> None:
    floor = ids.time_ordered_floor(moment)
    assert len(floor) == 32
    assert floor <= f"{moment // 1000:012x}" + "f" * 20
    assert ids.time_ordered_floor(moment + 1000) > floor


def test_new_ids_are_ordered_and_different() -> None:
    made = [ids.new_time_ordered_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert [i[:12] for i in made] == sorted(i[:12] for i in made)


def test_profile_ids_depend_on_workspace_and_message_alone() -> None:
    assert ids.profile_id("a", "m") == ids.profile_id("a", "m")
    assert ids.profile_id("a", "bm") != ids.profile_id("ab", "m")


@given(key=st.text(), partitions=st.integers(1, 1024))
def test_partitions_are_in_range(key: str, partitions: int) -> None:
    assert 0 <= ids.partition_of(key, partitions) < partitions
