"""Computed traits: definitions, values in one form, exact summaries, how buckets are read."""

from __future__ import annotations

import itertools
import json
import random
from decimal import Decimal
from typing import Any

import pytest
from headrace_identity.computed import reference
from headrace_identity.computed.buckets import BucketKey, Kept, Reading, bucket_key, loaded, reading_of, stored, unite
from headrace_identity.computed.summaries import FUNCTIONS, MOST_COUNTED
from headrace_identity.computed.traits import ComputedTrait, ComputedTraits, additions

from headrace.api.common.v1.event_pb2 import EventKind
from headrace.domain.computed_traits.definition import FUNCTION_NAMES, Definition, parse_definition
from headrace.domain.computed_traits.scalars import LONGEST_TEXT, number_of, number_text, order_of, scalar_of
from headrace.domain.computed_traits.values import MOST_LISTED
from headrace.domain.definitions import DefinitionError
from headrace.domain.times import DAY_US
from tests.support.computed import track


def test_a_definition_is_read() -> None:
    definition = parse_definition(
        '{"event": ["purchased", "Left"], "where": [{"property": "total", "gt": 5}], "within": "30d",'
        ' "compute": {"sum": "order.total"}}'
    )
    assert (definition.names, definition.within_us) == (("Left", "Purchased"), 30 * DAY_US)
    assert (definition.function, definition.path) == ("sum", ("order", "total"))
    assert [p.path for p in definition.where] == [("total",)]
    assert parse_definition({"event": "Left", "compute": "count"}) == Definition(("Left",), (), None, "count", ())


@pytest.mark.parametrize(
    ("raw", "path", "part"),
    [
        ("[1]", "", "is no object"),
        ("{", "", "no valid JSON"),
        ("[" * 60_000, "", "nested too deep"),
        (" " * 70_000, "", "longer than 64 KiB"),
        ('{"compute": "count"}', "", "needs 'event'"),
        ('{"event": "A"}', "", "needs 'compute'"),
        ('{"event": "A", "compute": "count", "windw": "3d"}', "windw", "unknown key 'windw'"),
        ('{"event": "", "compute": "count"}', "event", "not empty"),
        ('{"event": [], "compute": "count"}', "event", "empty list"),
        ('{"event": ["A", 3], "compute": "count"}', "event[1]", "must be a text"),
        (json.dumps({"event": [f"e{i}" for i in range(101)], "compute": "count"}), "event", "more than 100 names"),
        ('{"event": "A", "compute": "median"}', "compute", 'must be "count" or an object'),
        ('{"event": "A", "compute": {}}', "compute", "must be"),
        ('{"event": "A", "compute": {"sum": "a", "avg": "a"}}', "compute", "must be"),
        ('{"event": "A", "compute": {"median": "a"}}', "compute.median", "unknown key"),
        ('{"event": "A", "compute": {"sum": "a..b"}}', "compute.sum", "single dots"),
        ('{"event": "A", "compute": {"sum": 3}}', "compute.sum", "must be a text"),
        ('{"event": "A", "compute": "count", "within": "0d"}', "within", "longer than nothing"),
        ('{"event": "A", "compute": "count", "within": "3cd"}', "within", "calendar days"),
        ('{"event": "A", "compute": "count", "within": 3}', "within", "must be a duration"),
        ('{"event": "A", "compute": "count", "where": {}}', "where", "must be a list"),
        ('{"event": "A", "compute": "count", "where": [{"property": "a"}]}', "where[0]", "no comparison"),
        (
            '{"event": "A", "compute": "count", "where": [{"property": "a", "matches": "("}]}',
            "where[0].matches",
            "no RE2",
        ),
        (
            json.dumps({"event": "A", "compute": "count", "where": [{"property": "a", "gt": 1}] * 51}),
            "where",
            "more than 50",
        ),
    ],
)
def test_a_wrong_definition_is_refused_with_its_place(raw: str, path: str, part: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(raw)
    assert caught.value.path == path
    assert part in caught.value.reason


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (1e3, "1000"),
        (19.90, "19.9"),
        (-0.5, "-0.5"),
        (2**53 + 1, "9007199254740993"),
        (1e300, "1E+300"),
        (5e-324, "5E-324"),
        ('a"b\\é\u0000', '"a\\"b\\\\é\\u0000"'),
        (True, "true"),
        (False, "false"),
        ("x" * LONGEST_TEXT, f'"{"x" * LONGEST_TEXT}"'),
        ("x" * (LONGEST_TEXT + 1), None),
        ("\ud800", None),
        (None, None),
        ([1], None),
        ({}, None),
        (10**400, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_each_value_has_one_form(value: Any, text: str | None) -> None:
    assert scalar_of(value) == text
    if text is not None:
        assert json.loads(text) == value


def test_values_have_an_order() -> None:
    ordered = [False, True, -3, 0.5, 1, 10, 1e300, "", "A", "a", "é", "😀"]
    texts = [scalar_of(v) for v in ordered]
    assert sorted(random.Random(1).sample(texts, len(texts)), key=order_of) == texts  # type: ignore[arg-type]


def result(function: str, values: list[Any], times: list[int] | None = None) -> Any:
    """The value over single events, united in all kinds of order, each kept and read back on the way."""
    functions = FUNCTIONS[function]
    pairs = list(zip(values, times or range(len(values)), strict=True))
    found = set()
    for order in itertools.islice(itertools.permutations(pairs), 24):
        kept: Kept | None = None
        for value, time_us in order:
            summary = functions.of(value, time_us)
            if summary is not None:
                one = Kept(time_us, time_us, summary)
                kept = unite(functions, loaded(functions, stored(functions, kept)) if kept else None, one)
        found.add(functions.result(kept.summary) if kept else None)
    assert len(found) == 1
    return found.pop()


def test_sums_are_exact_whatever_the_order() -> None:
    assert result("sum", [0.1, 0.2]).value == b"0.3"
    assert result("sum", [19.99, 0.01, 5]).value == b"25"
    assert result("sum", [1e300, 1, -1e300, 1e-300]).value == b"1." + b"0" * 299 + b"1"
    assert result("sum", [2**60, 2**60, 1]).value == str(2**61 + 1).encode()
    assert result("sum", [1, -1]).value == b"0"
    assert result("sum", ["1", None, True, [2]]) is None
    assert result("avg", [19.9, 19.9, 19.9]).value == b"19.9"
    assert result("avg", [1, 2, 2]).value == b"1.6666666666666667"
    assert result("avg", [1, 2, 3]).value == b"2"
    assert result("min", [3, -1, 1e300]).value == b"-1"
    assert result("max", [3, -1, "9"]).value == b"3"


def test_ties_go_by_value() -> None:
    assert result("first", ["b", "a", "c"], [1, 1, 2]).value == b'"a"'
    assert result("last", ["b", "a", "c"], [2, 2, 1]).value == b'"b"'
    assert result("first", [10, 9, "1"], [1, 1, 1]).value == b"9"
    assert result("last", [10, 9, True], [1, 1, 1]).value == b"10"
    assert result("most_frequent", ["b", "a", "a", "b"]).value == b'"a"'
    assert result("most_frequent", [2, "a", 2.0]).value == b"2"
    assert result("unique_list", ["b", 2, True, "a"]).value == b'[true,2,"a","b"]'
    assert result("count", ["a", None, [1]]).value == b"3"


def test_a_list_is_cut_and_says_so() -> None:
    function = FUNCTIONS["unique_list"]
    summary: Any = set()
    for value in random.Random(3).sample(range(5 * MOST_LISTED), 5 * MOST_LISTED):
        summary = function.unite(summary, function.of(value, 0))
    found = function.result(function.load(function.store(summary)))
    assert found.truncated
    assert json.loads(found.value) == list(range(MOST_LISTED))
    exactly = function.result({str(i) for i in range(MOST_LISTED)})
    assert (len(json.loads(exactly.value)), exactly.truncated) == (MOST_LISTED, False)


def test_a_summary_that_is_too_large_is_not_kept_and_stays_so() -> None:
    function = FUNCTIONS["most_frequent"]
    large = Kept(1, 2, {str(i): 1 for i in range(MOST_COUNTED + 1)})
    again = loaded(function, stored(function, large))
    assert again == Kept(1, 2, None)
    assert unite(function, again, Kept(3, 3, {"1": 1})) == Kept(1, 3, None)
    texts = {json.dumps(f"{i:0400}"): 1 for i in range(200)}
    assert function.store(texts) is None
    assert FUNCTIONS["unique_list"].store(set(texts)) is None


DAY = 100 * DAY_US


@pytest.mark.parametrize(
    ("kept", "within_us", "now_us", "expected"),
    [
        (Kept(DAY + 5, DAY + 9, 1), None, DAY + 9, Reading(whole=True)),
        (Kept(DAY + 5, DAY + 9, 1), None, DAY + 8, Reading(whole=False, events=(DAY + 4, DAY + 8))),
        (Kept(DAY + 5, DAY + 9, 1), None, DAY + 4, Reading(whole=False)),
        (Kept(DAY + 5, DAY + 9, None), None, DAY + 9, Reading(whole=False, events=(DAY + 4, DAY + 9))),
        (Kept(DAY + 5, DAY + 9, 1), 100, DAY + 104, Reading(whole=True)),
        (Kept(DAY + 5, DAY + 9, 1), 100, DAY + 105, Reading(whole=False, events=(DAY + 5, DAY + 9))),
        (Kept(DAY + 5, DAY + 9, 1), 100, DAY + 108, Reading(whole=False, events=(DAY + 8, DAY + 9))),
        (Kept(DAY + 5, DAY + 9, 1), 100, DAY + 109, Reading(whole=False)),
    ],
)
def test_a_bucket_is_read_whole_or_by_its_events(
    kept: Kept, within_us: int | None, now_us: int, expected: Reading
) -> None:
    assert reading_of(kept, within_us, now_us) == expected


def test_only_track_events_of_the_right_name_add_to_buckets() -> None:
    raw = {"event": "Purchased", "within": "2d", "compute": {"sum": "v"}}
    traits = ComputedTraits(
        [
            ComputedTrait("sum", "1", parse_definition(raw), ready=True),
            ComputedTrait("all", "2", parse_definition({"event": "Purchased", "compute": "count"}), ready=True),
        ]
    )
    page = track("m3", DAY, {"v": 1}, workspace_id="w", kind=EventKind.EVENT_KIND_PAGE)
    events = [
        ("p1", track("m1", DAY, {"v": 1}, workspace_id="w")),
        ("p1", track("m2", DAY - 1, {"v": 2}, workspace_id="w")),
        ("p1", page),
        ("p1", track("m4", DAY, {"v": 1}, workspace_id="w", name="Left")),
        ("p2", track("m5", DAY + 7, {"v": "1"}, workspace_id="w")),
        ("", track("m6", DAY, {"v": 1}, workspace_id="w")),
    ]
    assert additions(traits, events, now_us=DAY) == {
        BucketKey("p1", 100): {"1": Kept(DAY, DAY, Decimal(1))},
        BucketKey("p1", 99): {"1": Kept(DAY - 1, DAY - 1, Decimal(2))},
        BucketKey("p1", None): {"2": Kept(DAY - 1, DAY, 2)},
        BucketKey("p2", None): {"2": Kept(DAY + 7, DAY + 7, 1)},
    }
    # Four days later nobody asks for that day any more: two of the window, one of margin, and the day itself.
    assert BucketKey("p1", 99) not in additions(traits, events, now_us=DAY + 3 * DAY_US)
    assert BucketKey("p1", 100) in additions(traits, events, now_us=DAY + 3 * DAY_US)
    assert additions(ComputedTraits(), events, now_us=DAY) == {}
    assert bucket_key("w", BucketKey("p1", -1)) == "w\x1fp1\x1f-1"
    assert bucket_key("w", BucketKey("p1", None)) == "w\x1fp1\x1f"


def test_the_reference_is_right_about_what_it_is_asked() -> None:
    def of(compute: object, **more: object) -> Any:
        definition = parse_definition({"event": "Purchased", "compute": compute, **more})
        return reference.as_json(reference.compute(definition, events, DAY + 2))

    events = [
        track("m1", DAY, {"v": 0.1, "t": "b"}, workspace_id="w"),
        track("m2", DAY + 1, {"v": 0.2, "t": "a"}, workspace_id="w"),
        track("m3", DAY + 2, {"v": "9", "t": "a"}, workspace_id="w"),
        track("m4", DAY + 3, {"v": 100, "t": "z"}, workspace_id="w"),
    ]
    assert of("count") == b"3"
    assert of("count", within="1s") == b"3"
    assert of({"sum": "v"}) == b"0.3"
    assert of({"avg": "v"}) == b"0.15"
    assert of({"first": "t"}) == b'"b"'
    assert of({"last": "v"}) == b'"9"'
    assert of({"most_frequent": "t"}) == b'"a"'
    assert of({"unique_list": "v"}) == b'[0.1,0.2,"9"]'
    assert of({"sum": "nothing"}) == b""
    assert of("count", where=[{"property": "v", "gt": 0.1}]) == b"1"
    assert reference.same(b"", None)
    assert not reference.same(b"1", True)
    assert not reference.same(b"1", None)
    assert not reference.same(
        b"", reference.compute(parse_definition({"event": "Purchased", "compute": "count"}), events, DAY)
    )


def test_numbers_are_those_that_predicates_compare() -> None:
    assert number_of(True) is None
    assert number_of("1") is None
    assert number_text(Decimal("1e30")) == "1" + "0" * 30
    assert set(FUNCTIONS) == set(FUNCTION_NAMES)
