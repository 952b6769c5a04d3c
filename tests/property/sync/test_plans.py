"""Plans of list syncs: pages of a dry run see everybody once; an operation says what becomes of the rows."""

from __future__ import annotations

from headrace_sync.lists.diff import Difference, HeldRow, MemberRecord, RowState, difference
from headrace_sync.plans.pages import Position, next_position
from headrace_sync.plans.rules import Counts, Operation, Window, digest, operation_of
from hypothesis import given
from hypothesis import strategies as st

ids = st.lists(st.text("abcde", min_size=1, max_size=3), unique=True, max_size=15).map(sorted)
rows = st.dictionaries(st.sampled_from("abcd"), st.just("data"), max_size=4)


@given(ids, ids, st.integers(1, 4), st.integers(1, 4))
def test_pages_see_everybody_once(members: list[str], known: list[str], size: int, page: int) -> None:
    """The audience pages by tokens of its own, here numbers; what the sync knows is read from an id on."""
    seen: list[str] = []
    position: Position | None = Position()
    for _ in range(200):
        assert position is not None
        start = int(position.token or 0)
        there = members[start : start + page]
        token = str(start + page) if start + page < len(members) else ""
        own = [id for id in known if id > position.after][:size]
        following = next_position(position, members=there, next_token=token, known=own, size=size)
        upto = following.after if following else None
        seen += sorted(id for id in {*there, *own} if id > position.after and (upto is None or id <= upto))
        position = following
        if position is None:
            break
    assert position is None
    assert seen == sorted({*members, *known})


@given(rows, rows, st.booleans(), st.sampled_from(RowState))
def test_an_operation_says_what_becomes_of_the_rows(
    held: dict[str, str], wanted: dict[str, str], desired: bool, state: RowState
) -> None:
    record = MemberRecord("p", desired=desired, rows={key: HeldRow(data, state) for key, data in held.items()})
    changes = difference(record, wanted)
    after = wanted.keys() if desired else set()
    operation = operation_of(record, changes)
    if held and held.keys() <= after and state is RowState.ELSEWHERE:
        assert operation is Operation.ADD  # whatever is on the list before, it is new on this one
    elif held.keys() == after:
        assert operation is (Operation.RESEND if held and state is RowState.SENT else Operation.NOTHING)
    elif not held:
        assert operation is Operation.ADD
    elif not after:
        assert operation is Operation.REMOVE
    else:
        assert operation is Operation.UPDATE


@given(rows, rows, rows, rows)
def test_an_approval_is_bound_to_the_rows(
    add: dict[str, str], remove: dict[str, str], other_add: dict[str, str], other_remove: dict[str, str]
) -> None:
    same = (add.keys(), remove.keys()) == (other_add.keys(), other_remove.keys())
    assert (digest(Difference(add, remove)) == digest(Difference(other_add, other_remove))) == same


steps = st.lists(st.builds(Counts, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=8)


@given(st.integers(0, 50), st.integers(1, 100), steps)
def test_no_more_than_the_share_is_changed_unasked(size: int, percent: int, passes: list[Counts]) -> None:
    """Whatever comes in how many passes: what goes through unasked is at most the share of what was there."""
    window = Window(0, size)
    changed = added = 0
    for counts in passes:
        if window.share(counts) <= percent:
            window.count(counts)
            changed += counts.updated + counts.removed
            added += counts.added
    base = size or added
    assert 100 * (changed + (added if size else 0)) <= percent * base
