"""What an approval of a list sync's changes is bound to."""

from __future__ import annotations

from headrace_sync.lists.diff import Difference
from headrace_sync.plans.rules import digest


def test_an_approval_is_bound_to_all_that_is_sent() -> None:
    approved = Difference({"ada": {"email": "ada@example.com", "plan": "gold"}}, {"bob": {"email": "bob@example.com"}})
    same = Difference({"ada": {"plan": "gold", "email": "ada@example.com"}}, {"bob": {}})
    assert digest(approved) == digest(same)
    other_attribute = Difference({"ada": {"email": "ada@example.com", "plan": "free"}}, approved.remove)
    other_row = Difference({"eve": approved.add["ada"]}, approved.remove)
    fewer = Difference(approved.add, {})
    assert len({digest(approved), digest(other_attribute), digest(other_row), digest(fewer)}) == 4
