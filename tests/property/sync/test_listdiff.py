"""List syncs against a model vendor: whatever is lost and wherever it crashes, the list becomes what it should be."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from headrace_sync.lists.diff import (
    HeldRow,
    MemberRecord,
    RowState,
    difference,
    doubt,
    intend,
    removable,
    resend_everything,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

MEMBERS = ("m0", "m1", "m2")
KEYS = ("a", "b", "c", "d")


class Crash(Exception):
    """The process ends here."""


@dataclass
class Faults:
    """What goes wrong, by step: "ok", "lost" (arrived, no answer), "refused" (nothing happened) or "crash"."""

    plan: list[str]

    def next(self) -> str:
        return self.plan.pop(0) if self.plan else "ok"


@dataclass
class Line:
    """A list sync as the service runs it: a store that survives, a vendor, and passes between them."""

    stored: dict[str, MemberRecord] = field(default_factory=lambda: {m: MemberRecord(m) for m in MEMBERS})
    wanted: dict[str, set[str]] = field(default_factory=lambda: {m: set() for m in MEMBERS})
    vendor: set[str] = field(default_factory=set)
    version: int = 0

    def change(self, member: str, desired: bool, into: str = "") -> None:
        self.version += 1
        assert self.stored[member].change(member=desired, version=self.version, merged_into=into)
        assert not self.stored[member].change(member=not desired, version=self.version - 1)  # old news

    def save(self, record: MemberRecord, faults: Faults) -> None:
        if faults.next() == "crash":
            raise Crash
        self.stored[record.profile_id] = copy.deepcopy(record)

    def send(self, operation: str, key: str, faults: Faults) -> bool:
        """Send a row; True when the vendor said that it did it."""
        fault = faults.next()
        if fault == "crash":
            raise Crash
        if fault != "refused":
            (self.vendor.add if operation == "add" else self.vendor.discard)(key)
        return fault == "ok"

    def run_pass(self, faults: Faults) -> None:
        try:
            for member in MEMBERS:
                self.hand_over(member, faults)
            for member in MEMBERS:
                self.one(member, faults)
        except Crash:
            pass

    def hand_over(self, member: str, faults: Faults) -> None:
        loser = copy.deepcopy(self.stored[member])
        if loser.desired or not loser.merged_into or not loser.rows:
            return
        survivor = copy.deepcopy(self.stored[loser.merged_into])
        survivor.receive(loser.rows)
        self.save(survivor, faults)
        loser.rows, loser.merged_into = {}, ""
        self.save(loser, faults)

    def one(self, member: str, faults: Faults) -> None:
        record = copy.deepcopy(self.stored[member])
        changes = difference(record, {key: key for key in self.wanted[member]})
        others = {
            key for other, held in self.stored.items() if other != member and held.desired for key in held.rows
        } | {key for other in MEMBERS if other != member and self.stored[other].desired for key in self.wanted[other]}
        to_send, to_forget = removable(changes.remove, others)
        record.forget(to_forget)
        if doubt(record, to_send):
            self.save(record, faults)
        for key in to_send:
            if self.send("remove", key, faults):
                record.forget([key])
        if intend(record, changes.add):
            self.save(record, faults)
        for key in changes.add:
            if self.send("add", key, faults):
                record.acknowledge([key])
        self.save(record, faults)

    def should(self) -> set[str]:
        return {key for m in MEMBERS if self.stored[m].desired for key in self.wanted[m]}


steps = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(MEMBERS), st.booleans()),
    st.tuples(st.just("want"), st.sampled_from(MEMBERS), st.sets(st.sampled_from(KEYS), max_size=3)),
    st.tuples(st.just("merge"), st.sampled_from(MEMBERS), st.sampled_from(MEMBERS)),
    st.tuples(
        st.just("pass"), st.lists(st.sampled_from(("ok", "ok", "lost", "refused", "crash")), max_size=12), st.none()
    ),
    st.tuples(st.just("doubt"), st.none(), st.none()),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=25))
@example(  # the answer to a removal is lost, and the member comes back before another try
    [
        ("want", "m0", {"a"}),
        ("change", "m0", True),
        ("pass", [], None),
        ("change", "m0", False),
        ("pass", ["ok", "lost"], None),
        ("change", "m0", True),
    ]
)
@example(  # the process ends right after a removal
    [
        ("want", "m0", {"a"}),
        ("change", "m0", True),
        ("pass", [], None),
        ("change", "m0", False),
        ("pass", ["ok", "ok", "crash"], None),
        ("change", "m0", True),
    ]
)
def test_the_list_becomes_what_it_should_be(history: list[tuple[str, object, object]]) -> None:
    line = Line()
    for what, first, second in history:
        if what == "change":
            line.change(str(first), bool(second))
        elif what == "want":
            line.wanted[str(first)] = set(second)  # type: ignore[call-overload]  # by the strategy
        elif what == "merge" and first != second:
            line.change(str(first), False, into=str(second))
        elif what == "pass":
            line.run_pass(Faults(list(first)))  # type: ignore[call-overload]  # by the strategy
        elif what == "doubt":
            for record in line.stored.values():
                resend_everything(record)
        # What may be on the list is always written down somewhere, so that it can be removed.
        known = {key for record in line.stored.values() for key in record.rows}
        assert line.vendor <= known | set().union(*line.wanted.values())
        assert line.vendor <= known
    for _ in range(4):
        line.run_pass(Faults([]))
    assert line.vendor == line.should()
    for record in line.stored.values():
        assert not difference(record, {key: key for key in line.wanted[record.profile_id]})


rows = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(RowState))


@given(rows, st.booleans(), st.sets(st.sampled_from(KEYS)))
def test_a_difference_is_all_that_is_missing_or_too_many(
    held: dict[str, RowState], desired: bool, wanted: set[str]
) -> None:
    record = MemberRecord("m", desired=desired, rows={key: HeldRow(key, state) for key, state in held.items()})
    found = difference(record, dict.fromkeys(wanted, "new"))
    should = wanted if desired else set()
    sure = {key for key, state in held.items() if state is RowState.ACKNOWLEDGED}
    assert set(found.add) == should - sure
    assert set(found.remove) == set(held) - should
    assert all(found.remove[key] == key for key in found.remove)  # removed is what was added, not what is wanted now


@given(rows, rows)
def test_rows_handed_over_keep_every_doubt(mine: dict[str, RowState], theirs: dict[str, RowState]) -> None:
    record = MemberRecord("m", rows={key: HeldRow(key, state) for key, state in mine.items()})
    record.receive({key: HeldRow(key, state) for key, state in theirs.items()})
    sure = RowState.ACKNOWLEDGED
    expected = {key: min(mine.get(key, sure), theirs.get(key, sure)) for key in mine | theirs}
    assert {key: row.state for key, row in record.rows.items()} == expected


OWN_KEYS = {"m0": {"a", "b"}, "m1": {"b", "c"}, "m2": {"d"}}


@dataclass
class People(Line):
    """Members who merge and come apart again: each has the rows of all profiles that were merged into it."""

    merges: list[tuple[str, str]] = field(default_factory=list)
    qualified: set[str] = field(default_factory=set)
    told: dict[str, bool] = field(default_factory=dict)

    def root(self, member: str) -> str:
        into = dict(self.merges)
        while member in into:
            member = into[member]
        return member

    def tell(self) -> None:
        """The audience notices who is a member now; identity knows what each has."""
        roots = {self.root(member) for member in self.qualified}
        for member in MEMBERS:
            self.wanted[member] = set().union(*(OWN_KEYS[part] for part in MEMBERS if self.root(part) == member))
            if (member in roots) != self.told.get(member, False):
                self.told[member] = member in roots
                root = self.root(member)
                self.change(member, member in roots, into=root if member not in roots and root != member else "")

    def one(self, member: str, faults: Faults) -> None:
        if self.stored[member].desired and self.root(member) != member:
            return  # merged, and its exit is on its way
        super().one(member, faults)


stories = st.one_of(
    st.tuples(st.just("qualify"), st.sampled_from(MEMBERS), st.none()),
    st.tuples(st.just("merge"), st.sampled_from(MEMBERS), st.sampled_from(MEMBERS)),
    st.tuples(st.just("undo"), st.integers(0, 2), st.none()),
    st.tuples(st.just("tell"), st.none(), st.none()),
    st.tuples(st.just("pass"), st.lists(st.sampled_from(("ok", "lost", "refused", "crash")), max_size=12), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(stories, max_size=25))
def test_after_merges_and_undone_merges_the_list_is_that_of_the_members(
    history: list[tuple[str, object, object]],
) -> None:
    line = People()
    for what, first, second in history:
        if what == "qualify":
            line.qualified ^= {str(first)}
        elif what == "merge" and first != second:
            if line.root(str(first)) == first and line.root(str(second)) == second:
                line.merges.append((str(first), str(second)))
        elif what == "undo" and line.merges:
            line.merges.pop(int(str(first)) % len(line.merges))
        elif what == "tell":
            line.tell()
        elif what == "pass":
            line.run_pass(Faults(list(first)))  # type: ignore[call-overload]  # by the strategy
    line.tell()
    for _ in range(4):
        line.run_pass(Faults([]))
    members = {line.root(member) for member in line.qualified}
    assert line.vendor == {key for member in MEMBERS if line.root(member) in members for key in OWN_KEYS[member]}
