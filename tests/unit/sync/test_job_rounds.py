"""What a round of questions about a stored job leaves, and what members are after the end of their rows' jobs."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from headrace_sync.jobs.follower import LONGEST_S, ask_round, settled
from headrace_sync.jobs.store import part_of
from headrace_sync.outlets.verdicts import Kind, Verdict
from headrace_sync.store import DELIVERED, FAILED, WAITING, WARNING

from headrace.domain.times import SECOND_US

NOW = 1_000_000_000_000
INFO = cast(Any, SimpleNamespace(retry=SimpleNamespace(base_s=1.0, cap_s=60.0)))
DONE, GOES_ON = Verdict(Kind.DELIVERED, code=200), Verdict(Kind.PENDING, "j", 200)
REFUSED = Verdict(Kind.REJECTED, "no", 200, exchange="x1")


class Asked:
    """An outlet that answers with what a test says."""

    def __init__(self, *answers: Sequence[Verdict]) -> None:
        self.answers = list(answers)
        self.questions: list[tuple[str, int]] = []

    async def poll(self, job: str, size: int) -> Sequence[Verdict]:
        self.questions.append((job, size))
        return self.answers.pop(0)


def job(*ids: str, began: int = NOW, asked_at: int = NOW, wait_s: float = 2.0) -> dict[str, Any]:
    items = [{"id": id, "r": f"row-{id}", "g": 1} for id in ids]
    return {"_id": "job-1", "c": began, "n": 0, "p": [part_of("j", items, at=asked_at, wait_s=wait_s)]}


async def asked(
    document: dict[str, Any], *answers: Sequence[Verdict]
) -> tuple[list[tuple[str, Kind]], list[Any], Asked]:
    outlet = Asked(*answers)
    found = await ask_round(cast(Any, outlet), document, NOW)
    left = [(p["j"], [i["id"] for i in p["i"]], (p["a"] - NOW) / SECOND_US) for p in found.left]
    return [(str(item["id"]), verdict.kind) for item, verdict in found.ended], left, outlet


async def test_what_has_not_ended_is_asked_for_later_and_later() -> None:
    ended, left, outlet = await asked(job("a", "b"), [DONE, GOES_ON])
    assert (ended, left, outlet.questions) == ([("a", Kind.DELIVERED)], [("j", ["b"], 3.0)], [("j", 2)])
    _, left, _ = await asked(job("a", wait_s=29.0), [GOES_ON])
    assert left == [("j", ["a"], 30.0)]
    ended, left, outlet = await asked(job("a", asked_at=NOW + 1))
    assert (ended, left, outlet.questions) == ([], [("j", ["a"], 0.000001)], [])


async def test_a_vendor_may_ask_to_be_asked_less_often() -> None:
    _, left, _ = await asked(job("a", wait_s=1800.0), [Verdict(Kind.PENDING, "j", 200, 1800.0)])
    assert left == [("j", ["a"], 1800.0)]
    _, left, _ = await asked(job("a", wait_s=8.0), [Verdict(Kind.PENDING, "j", 200, 5.0)])
    assert left == [("j", ["a"], 12.0)]


async def test_a_job_may_end_in_others() -> None:
    ended, left, _ = await asked(
        job("a", "b", "c"), [Verdict(Kind.PENDING, "k", 200, 0.0), DONE, Verdict(Kind.PENDING, "l", 200, 5.0)]
    )
    assert ended == [("b", Kind.DELIVERED)] and left == [("k", ["a"], 0.0), ("l", ["c"], 5.0)]


@pytest.mark.parametrize("kind", [Kind.UNTRIED, Kind.LOST, Kind.PLUGIN])
async def test_what_could_not_be_asked_is_asked_again_until_the_time_is_up(kind: Kind) -> None:
    ended, left, _ = await asked(job("a"), [Verdict(kind, "nobody answers")])
    assert ended == [] and left == [("j", ["a"], 3.0)]
    ended, left, _ = await asked(job("a", began=NOW - int(LONGEST_S * SECOND_US)), [Verdict(kind)])
    assert (ended, left) == ([("a", Kind.LOST)], [])


def member(*rows: str, desired: bool = True, **more: Any) -> dict[str, Any]:
    stored = [{"k": row, "d": msgspec.json.encode(row), "s": 0} for row in rows]
    return {"_id": "s\x1fp", "p": "p", "desired": desired, "v": 1, "rows": stored, "g": 1, "jb": ["job-1"], **more}


def after(document: dict[str, Any], *ended: tuple[str, Verdict], removes: bool = False, goes_on: bool = False) -> Any:
    items = [({"id": "s\x1fp", "r": row, "g": 1}, verdict) for row, verdict in ended]
    return settled("job-1", document, items, INFO, removes=removes, goes_on=goes_on, now=NOW)


def rows_of(result: Any) -> dict[str, int]:
    return {key: int(row.state) for key, row in result.record.rows.items()}


def test_rows_that_were_added_or_removed_are_written_down() -> None:
    added = after(member("a"), ("a", DONE))
    assert (added.state, added.due, rows_of(added), added.out_of_job) == (DELIVERED, 0, {"a": 1}, "job-1")
    removed = after(member("a", desired=False), ("a", DONE), removes=True)
    assert (removed.state, removed.due, rows_of(removed)) == (DELIVERED, 0, {})
    # Something else was to be done, or a row made room for another: the next pass looks.
    assert after(member("a", due=7), ("a", DONE)).due == 7
    assert after(member("a"), ("a", DONE), removes=True).due == NOW


def test_rows_that_failed_are_told_with_code_and_request() -> None:
    refused = after(member("a", "b"), ("a", DONE), ("b", REFUSED))
    assert (refused.state, refused.reason, refused.code, refused.exchange) == (FAILED, "no", 200, "x1")
    assert rows_of(refused) == {"a": 1} and refused.due == 0
    warned = after(member("a"), ("a", Verdict(Kind.WARNED, "hm", 200)))
    assert (warned.state, warned.reason, rows_of(warned)) == (WARNING, "hm", {"a": 1})
    again = after(member("a", at=2), ("a", Verdict(Kind.RETRY, "later", 200)))
    assert (again.state, again.tries, rows_of(again)) == (WAITING, 3, {"a": 0}) and again.due > NOW
    kept = after(member("a", desired=False), ("a", REFUSED), removes=True)
    assert (kept.state, rows_of(kept)) == (FAILED, {"a": 0}), "it may still be on the list"


@pytest.mark.parametrize("more", [{"goes_on": True}, {}])
def test_who_has_other_rows_under_way_waits_for_them(more: dict[str, bool]) -> None:
    document = member("a", "b") if more else member("a", "b", jb=["job-1", "job-2"])
    result = after(document, ("a", DONE), **more)
    assert (result.state, result.in_job, result.due, rows_of(result)) == (WAITING, True, NOW, {"a": 1, "b": 0})
    assert result.out_of_job == ("" if more else "job-1")
