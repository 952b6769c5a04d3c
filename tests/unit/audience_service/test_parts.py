"""The pure parts of the audience service: survivors, pending flips, edges of streams, missing history."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest
from headrace_audience.archive.layout import day_of, path_of
from headrace_audience.archive.survivors import Survivors
from headrace_audience.definitions.catalog import Audience
from headrace_audience.engine.engine import Flip
from headrace_audience.engine.states import PROFILES
from headrace_audience.evaluation import Evaluation
from headrace_audience.language.parser import parse_definition
from headrace_audience.memberships.pending import Pending
from headrace_audience.partitions import streaming
from headrace_audience.partitions.passing import Passing
from headrace_audience.partitions.streaming import Edges
from headrace_audience.store import ACTIVE, DELETING, FILLING, PAUSED
from headrace_audience.threads import in_thread, to_the_end

from headrace.api.identity.v1.profile_pb2 import Reassignment
from headrace.domain.ids import partition_of
from headrace.domain.times import HOUR_US

NOW = 1_700_000_000_000_000


def test_survivors_are_followed_whatever_the_order() -> None:
    pairs = [("a", "b"), ("b", "c"), ("d", "c"), ("e", "a")]
    for seed in range(10):
        random.Random(seed).shuffle(pairs)
        survivors = Survivors(pairs)
        assert {p: survivors.of(p) for p in "abcdex"} == {**dict.fromkeys("abcde", "c"), "x": "x"}
        assert dict(survivors.pairs()) == dict.fromkeys("abde", "c")
        survivors.add([("c", "z")])
        assert survivors.of("e") == "z" and survivors.parts_of(["z"])["a"] == "z"


def test_survivors_end_even_in_a_circle() -> None:
    survivors = Survivors([("a", "b"), ("b", "a"), ("c", "c"), ("", "a")])
    assert survivors.of("a") in "ab" and survivors.of("c") == "c" and len(survivors) == 2


@pytest.mark.parametrize(
    ("edges", "position", "expected"),
    [
        (Edges("5-0", "9-0"), "9-0", True),
        (Edges("5-0", "9-0"), "5-0", True),
        (Edges("5-0", "9-0"), "7-3", True),
        (Edges("5-0", "9-0"), "4-9", False),  # what came between was trimmed, perhaps
        (Edges("5-0", "9-0"), "10-0", False),  # the stream is younger than the position
        (Edges("", "0-0"), "0-0", True),
        (Edges("", "0-0"), "3-0", False),  # the stream is gone
        (Edges("", "9-0"), "9-0", True),
        (Edges("", "9-0"), "8-0", False),
        (Edges("5-0", "5-0"), "0-0", False),
    ],
)
def test_when_a_position_can_be_trusted(edges: Edges, position: str, expected: bool) -> None:
    assert edges.reach_back_to(position) is expected


def flip(audience_id: str, profile_id: str, member: bool = True) -> Flip:
    return Flip(audience_id, profile_id, member, NOW, "event")


def test_pending_keeps_the_order_of_an_audience_and_lets_few_go_first() -> None:
    pending = Pending(lambda profile_id: int(profile_id[1:]) % 2)
    pending.add(flip("big", f"p{i}") for i in range(10))
    pending.add([flip("small", "p1"), flip("small", "p2", False)])
    taken = pending.take(5)
    assert [f.audience_id for f in taken] == ["big", "big", "big", "small", "small"], "in the order of their coming"
    pending.put_back(taken)
    assert len(pending) == 12
    assert [f.member for f in pending.take(2)] == [True, False]
    assert [f.profile_id for f in pending.take(99)] == [f"p{i}" for i in range(10)]
    assert not pending.take(1)


def test_pending_lets_no_burst_delay_later_flips_of_others_and_gives_the_earliest_first() -> None:
    pending = Pending(lambda profile_id: 0)
    pending.add(flip(a, f"p{i}") for i in range(100) for a in ("burst", "other burst"))
    written = pending.take(50)
    assert {f.audience_id for f in written} == {"burst"}
    pending.add([flip("later", "p1"), flip("latest", "p1")])
    first = pending.take(1)
    assert [f.audience_id for f in first] == ["later"]
    pending.put_back(first)
    assert [f.audience_id for f in pending.take(1)] == ["later"], "its turn is not lost when writing fails"
    taken = pending.take(51)
    assert Counter(f.audience_id for f in taken) == {"burst": 38, "latest": 1, "other burst": 12}
    assert taken[-1].audience_id == "latest", "in the order of their coming"
    assert [f.profile_id for f in (*taken, *pending.take(100)) if f.audience_id == "other burst"] == [
        f"p{i}" for i in range(100)
    ]


def test_pending_lets_no_long_queue_wait_for_ever() -> None:
    pending = Pending(lambda profile_id: 0)
    pending.add(flip("burst", f"p{i}") for i in range(20))
    for number in range(10):
        pending.add(flip(f"short {number} {i}", "p") for i in range(8))
        assert Counter(f.audience_id == "burst" for f in pending.take(8)) == {True: 2, False: 6}
    assert not pending.waits_for("burst")


def test_pending_gives_a_membership_once_at_a_time() -> None:
    pending = Pending(lambda profile_id: int(profile_id[1:]) % 2)
    pending.add([flip("a", "p1"), flip("a", "p2"), flip("a", "p1", False), flip("a", "p3"), flip("b", "p1")])
    first = pending.take(9)
    assert [(f.audience_id, f.profile_id) for f in first] == [("a", "p1"), ("a", "p2"), ("b", "p1")]
    pending.put_back(first)
    assert pending.take(9) == first
    assert [(f.profile_id, f.member) for f in pending.take(9)] == [("p1", False), ("p3", True)]


def test_pending_forgets_partitions_and_audiences() -> None:
    pending = Pending(lambda profile_id: int(profile_id[1:]) % 2)
    pending.add(flip(a, f"p{i}") for a in ("x", "y") for i in range(4))
    assert pending.holds_partition(1)
    pending.drop_partitions(frozenset([1]))
    assert not pending.holds_partition(1) and len(pending) == 4
    pending.drop_audience("x")
    assert not pending.waits_for("x") and pending.waits_for("y") and len(pending) == 2


def test_days_of_all_times() -> None:
    assert day_of(0) == "1970-01-01"
    assert day_of(-1) == "1969-12-31"
    assert day_of(1_700_000_000_000_000) == "2023-11-14"
    assert (day_of(2**62), day_of(-(2**62))) == ("9999-12-31", "0001-01-01")
    path = path_of("events", "acme", "2023-11-14", 1, 20, 3, 0)
    assert path.startswith("events/workspace=acme/day=2023-11-14/") and path.endswith("-000003-0.parquet")


def audience(audience_id: str = "a", state: str = FILLING, generation: int = 1, **fields: object) -> Audience:
    definition = parse_definition({"kind": fields.pop("kind", "dynamic"), "where": {"event": fields.pop("event", "A")}})
    values = {"cause": "fill", "at_us": NOW, "base": 0, "done": frozenset[int](), **fields}
    return Audience("acme", audience_id, state, definition, generation, **values)  # type: ignore[arg-type]  # by name


def test_a_partition_starts_when_all_that_was_asked_for_is_brought() -> None:
    evaluation = Evaluation("acme", 2, NOW)
    evaluation.set_audience(audience(), NOW)
    evaluation.add_partition(0, None)
    order = evaluation.order()
    assert order is not None and PROFILES in order.tickets and len(order.tickets) == 2
    evaluation.start_what_is_complete([0])
    assert not evaluation.started
    (key,) = order.tickets.keys() - {PROFILES}
    for wanted in (PROFILES, key):
        evaluation.brought(wanted, evaluation.still_wanted(wanted, order.tickets[wanted]))
    assert evaluation.order() is None
    evaluation.start_what_is_complete([])
    assert not evaluation.started, "its stream is not read far enough"
    evaluation.start_what_is_complete([0])
    assert evaluation.started == {0} and not evaluation.finished()
    evaluation.advance(NOW)
    assert evaluation.finished() == {"a": [0]}
    evaluation.set_audience(audience(done=frozenset([0])), NOW)
    assert not evaluation.finished()


def test_what_is_asked_for_again_is_not_satisfied_by_an_older_view() -> None:
    evaluation = Evaluation("acme", 2, NOW)
    evaluation.set_audience(audience(), NOW)
    evaluation.add_partition(0, None)
    order = evaluation.order()
    assert order is not None
    evaluation.drop_partition(0)
    assert evaluation.still_wanted(PROFILES, order.tickets[PROFILES]) == []
    evaluation.add_partition(0, None)
    assert evaluation.still_wanted(PROFILES, order.tickets[PROFILES]) == []
    newer = evaluation.order()
    assert newer is not None and evaluation.still_wanted(PROFILES, newer.tickets[PROFILES]) == [0]


def test_flips_of_an_audience_wait_until_they_are_written_before_it_counts_as_filled() -> None:
    evaluation = Evaluation("acme", 1, NOW)
    evaluation.add_partition(0, [])
    evaluation.set_audience(audience(kind="static"), NOW)
    order = evaluation.order()
    assert order is not None
    wanted, tickets = order.batch["a"]
    evaluation.start_what_is_complete([0])
    evaluation.advance(NOW)
    assert not evaluation.finished()
    evaluation.batch_computed("a", wanted.generation, tickets, ["p1", "p2"])
    assert not evaluation.finished()
    assert [(f.profile_id, f.cause) for f in evaluation.take_flips(9, 9)] == [("p1", "fill"), ("p2", "fill")]
    assert evaluation.finished() == {"a": [0]}


def test_a_merge_while_a_static_audience_is_computed_computes_the_survivors_partition_again() -> None:
    evaluation = Evaluation("acme", 4, NOW)
    for partition in range(4):
        evaluation.add_partition(partition, [])
    evaluation.set_audience(audience(kind="static"), NOW)
    order = evaluation.order()
    assert order is not None
    wanted, tickets = order.batch["a"]
    evaluation.merged.add([("p1", "p2")])
    evaluation.batch_again(partition_of("p2", 4))
    evaluation.batch_computed("a", wanted.generation, tickets, ["p1", "p3"])
    again = evaluation.order()
    assert again is not None and list(again.batch["a"][1]) == [partition_of("p2", 4)]


def test_members_of_an_audience_that_is_removed_leave() -> None:
    evaluation = Evaluation("acme", 1, NOW)
    evaluation.add_partition(0, [])
    assert evaluation.set_audience(audience(state=ACTIVE), NOW)
    assert not evaluation.set_audience(audience(state=ACTIVE), NOW), "nothing has changed"
    evaluation.set_members("a", ["p1"], [0], NOW)
    assert not evaluation.set_audience(audience(state=DELETING, generation=2), NOW), "its members are known"
    assert not evaluation.finished()
    (left,) = evaluation.take_flips(9, 9)
    assert (left.profile_id, left.member) == ("p1", False)
    assert evaluation.finished() == {"a": [0]}
    evaluation.remove_audience("a")
    assert not evaluation.audiences


def test_a_paused_audience_keeps_its_members() -> None:
    evaluation = Evaluation("acme", 1, NOW)
    evaluation.add_partition(0, [])
    assert evaluation.set_audience(audience(state=PAUSED), NOW)
    evaluation.set_members("a", ["p1"], [0], NOW)
    assert evaluation.constants == ["a"]
    evaluation.start_what_is_complete([0])
    assert evaluation.advance(NOW) == []
    assert evaluation.engine.members("a") == ["p1"]


@pytest.mark.parametrize(("state", "expected"), [(FILLING, 0), (DELETING, 0), (ACTIVE, 1)])
async def test_time_waits_for_what_was_due_but_not_for_what_is_filled_or_emptied(state: str, expected: int) -> None:
    evaluation = Evaluation("acme", 1, NOW)
    evaluation.set_audience(audience(state=state), NOW)
    evaluation.pending.add([flip("a", "p1"), flip("a", "p2")])
    passing = Passing()
    later = NOW + HOUR_US
    passing.take([NOW], later)
    passing.aim(later, streaming.NOTHING, {}, [])
    assert passing.catches_up
    written = 0

    async def write() -> bool:
        nonlocal written
        assert passing.moment_us == NOW, "before time goes on"
        evaluation.take_flips(9, 9)
        written += 1
        return True

    await passing.step({"acme": evaluation}, {}, list, asyncio.Lock(), write, time.monotonic() + 60)
    assert (written, passing.moment_us, passing.catches_up) == (expected, later, False)
    assert len(evaluation.pending) == (0 if expected else 2)


async def test_who_is_behind_writes_no_longer_than_it_may_and_goes_on_before_anything_later() -> None:
    evaluation = Evaluation("acme", 1, NOW)
    evaluation.set_audience(audience(state=ACTIVE), NOW)
    evaluation.pending.add(flip("a", f"p{i}") for i in range(3))
    passing = Passing()
    later = NOW + HOUR_US
    passing.take([NOW], later)
    passing.aim(later, streaming.NOTHING, {}, [])
    written: list[str] = []

    async def write() -> bool:
        assert passing.moment_us == NOW, "before time goes on"
        written.extend(f.profile_id for f in evaluation.take_flips(1, 0))
        return True

    over = time.monotonic()
    for number in range(1, 4):
        await passing.step({"acme": evaluation}, {}, list, asyncio.Lock(), write, over)
        assert written == [f"p{i}" for i in range(number)]
    assert not evaluation.has_due_unwritten


async def test_who_has_come_to_its_goal_and_not_written_all_is_still_behind() -> None:
    evaluation = Evaluation("acme", 1, NOW)
    evaluation.set_audience(audience(state=ACTIVE), NOW)
    passing = Passing()
    passing.take([NOW], NOW + HOUR_US)
    passing.aim(NOW + HOUR_US, streaming.NOTHING, {}, [])
    passing.passed(NOW + HOUR_US)
    assert not passing.catches_up
    evaluation.pending.add(flip("a", f"p{i}") for i in range(2))

    async def write() -> bool:
        evaluation.take_flips(1, 0)
        return True

    over = time.monotonic()
    await passing.step({"acme": evaluation}, {}, list, asyncio.Lock(), write, over)
    assert passing.catches_up
    await passing.step({"acme": evaluation}, {}, list, asyncio.Lock(), write, over)
    assert not passing.catches_up


async def test_work_goes_to_its_end_however_often_it_is_cancelled() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.set()

    task = asyncio.create_task(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0.005)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
    assert await in_thread(lambda: 7) == 7


def test_pending_lets_some_audiences_wait_and_withdraws_only_what_was_never_tried() -> None:
    pending = Pending(lambda profile_id: 0)
    pending.add(flip("due", f"p{i}") for i in range(5))
    pending.add([flip("filling", "p1"), flip("filling", "p2"), flip("filling", "p3")])
    assert {f.audience_id for f in pending.take(5, {"filling"}, 5)} == {"due"}, "however few wait of the others"
    assert pending.take(9, {"filling"}) == []
    tried = pending.take(9, {"filling"}, 1)
    assert [f.profile_id for f in tried] == ["p1"]
    pending.put_back(tried)
    assert [f.profile_id for f in pending.withdraw("filling")] == ["p2", "p3"]
    assert pending.take(9) == tried
    assert pending.withdraw("nothing") == []
    pending.add(flip(a, "p1") for a in ("one", "two", "three"))
    assert len(pending.take(9, {"one", "two", "three"}, 2)) == 2, "of all of them together"


def people(*profile_ids: str) -> tuple[Evaluation, list[str]]:
    """An evaluation that keeps a paused audience of these."""
    evaluation = Evaluation("acme", 1, NOW)
    evaluation.add_partition(0, [])
    assert evaluation.set_audience(audience(state=PAUSED), NOW)
    evaluation.set_members("a", profile_ids, [0], NOW)
    evaluation.start_what_is_complete([0])
    assert evaluation.advance(NOW) == []
    return evaluation, list(profile_ids)


def written(evaluation: Evaluation, limit: int = 99) -> list[tuple[str, bool]]:
    return [(f.profile_id, f.member) for f in evaluation.take_flips(limit, limit)]


def test_many_members_leave_some_at_a_time_and_behind_everybody_else() -> None:
    evaluation, members = people(*(f"p{i}" for i in range(10)))
    evaluation.set_audience(audience("b", state=ACTIVE), NOW)
    assert not evaluation.set_audience(audience(state=DELETING, generation=2), NOW + 1)
    evaluation.pending.add(flip("b", f"q{i}") for i in range(5))
    first = evaluation.take_flips(4, 4)
    assert {f.audience_id for f in first} == {"b"}
    assert len(evaluation.pending) == 1 + 4, "no more than can be written"
    assert not evaluation.finished()
    evaluation.pending.put_back(first)
    told = []
    while flips := evaluation.take_flips(4, 4):
        told += [f for f in flips if f.audience_id == "a"]
    assert sorted(f.profile_id for f in told) == sorted(members)
    assert {(f.member, f.effective_at_us) for f in told} == {(False, NOW + 1)}
    assert evaluation.finished() == {"a": [0]}


def test_an_audience_that_comes_back_while_its_members_leave_has_those_who_have_not_left() -> None:
    evaluation, members = people("p1", "p2", "p3", "p4", "erased")
    evaluation.set_audience(audience(state=DELETING, generation=2), NOW)
    evaluation.reassign([Reassignment(profile_id="erased", erased=True)])
    left = {p for p, _ in written(evaluation, 2)}
    evaluation.set_audience(audience(state=PAUSED, generation=3), NOW)
    assert set(evaluation.engine.members("a")) == {*members} - left - {"erased"}
    assert written(evaluation) == []


def test_leavers_of_a_partition_that_goes_elsewhere_are_forgotten() -> None:
    evaluation, _ = people("p1", "p2")
    evaluation.set_audience(audience(state=DELETING, generation=2), NOW)
    evaluation.drop_partition(0)
    assert written(evaluation) == []


def test_what_was_found_and_not_written_of_an_audience_that_changes_is_found_anew() -> None:
    evaluation, _ = people("stays", "goes")
    evaluation.engine.set_membership("a", ["comes"])
    evaluation.engine.set_membership("a", ["goes"], member=False)
    evaluation.pending.add([flip("a", "comes"), flip("a", "goes", False)])
    evaluation.set_audience(audience(state=ACTIVE, generation=2), NOW)
    assert evaluation.engine.members("a") == ["goes", "stays"]
    assert written(evaluation) == []


@pytest.mark.parametrize("state", [DELETING, ACTIVE])
def test_what_may_have_been_written_of_an_audience_that_changes_is_written_again(state: str) -> None:
    """Its answer was lost: whether the store has it or not, in the end it says what is known."""
    evaluation, _ = people("stays", "goes")
    evaluation.engine.set_membership("a", ["comes"])
    evaluation.engine.set_membership("a", ["goes"], member=False)
    evaluation.pending.add([flip("a", "comes"), flip("a", "goes", False)])
    evaluation.pending.put_back(evaluation.take_flips(9, 9))
    evaluation.set_audience(audience(state=state, generation=2), NOW)
    if state == DELETING:
        assert sorted(written(evaluation)) == [("comes", False), ("goes", False), ("stays", False)]
    else:
        assert evaluation.engine.members("a") == ["comes", "stays"]
        assert written(evaluation) == [("comes", True), ("goes", False)]
