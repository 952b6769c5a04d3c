"""What is refused because nobody could be in holds for nobody in any history, by the reference."""

from __future__ import annotations

from random import Random
from typing import Any

from headrace_audience.language.parser import parse_definition
from headrace_audience.language.windows_apart import check_windows
from headrace_audience.offline.reference import Reference
from hypothesis import event, given, settings
from hypothesis import strategies as st

from headrace.domain.definitions import DefinitionError
from tests.support import audience_histories as random
from tests.support.examples import examples


def counted(r: Random) -> dict[str, Any]:
    """A count of events, an event that is the first or the latest one, or none of these."""
    if r.randint(0, 3) == 3:
        kind = r.choice(("first_time", "last_time"))
        found = {kind: random.names(r), **(random.where(r) if kind == "last_time" else {}), **random.window(r)}
    else:
        count = {"count": random.count(r)} if r.randint(0, 1) else {}
        tests = {} if r.randint(0, 2) else random.where(r)
        found = {"event": r.choice(("A", "B", ["A", "B"])), **tests, **random.window(r), **count}
    return {"not": found} if r.randint(0, 2) == 2 else found


def is_impossible(where: dict[str, Any]) -> bool:
    try:
        check_windows("where", parse_definition({"where": where}).where)
    except DefinitionError:
        return True
    return False


def impossible(r: Random) -> dict[str, Any] | None:
    """Two conditions that must hold together and are refused; few pairs are, so that several are tried."""
    for _ in range(40):
        one, two = counted(r), counted(r)
        written = ({"all": [one, two]}, {"all": [one, {"all": [two]}]}, {"not": {"any": [{"not": one}, {"not": two}]}})
        if is_impossible(where := r.choice(written)):
            return where
    return None


@settings(max_examples=examples(60))
@given(r=st.randoms(use_true_random=False))
def test_nobody_is_in_what_is_refused_as_impossible(r: Random) -> None:
    with random.crowded():
        where = impossible(r)
        if where is None:
            return
        event("refused")
        definition = parse_definition({"where": where})
        for _ in range(4):
            reference = Reference(random.history(r, most=12))
            for _ in range(6):
                assert reference.members(definition, random.moment(r)) == [], where
