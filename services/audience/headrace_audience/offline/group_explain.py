"""Why a group is in or out of an audience of groups: each condition, whether it holds, and what counts for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.domain.times import format_time_us
from headrace_audience.batch.group_changes import GroupChanges
from headrace_audience.batch.groups import GroupFacts
from headrace_audience.language.definition import (
    All,
    Any_,
    AudienceMember,
    Condition,
    Definition,
    Members,
    Not,
    TraitTest,
)
from headrace_audience.language.text.printing import condition_text
from headrace_audience.offline.fewest import fewest
from headrace_audience.offline.sentences import missing, sentence, summary


def explain_group(
    definition: Definition, facts: GroupFacts, raw: Mapping[str, Any], changes: GroupChanges
) -> dict[str, Any]:
    """Explain the membership of a group.

    Args:
        definition: The audience.
        facts: What holds of the group at the moment: of the reference (`groups`), or of `batch.queries.group_facts`.
        raw: The condition of the audience as JSON, for the texts.
        changes: When conditions change next, see `batch.group_changes`.

    Returns:
        `{"member", "changes_at", "summary", "missing", "fewer_possible", "condition"}` as `explain` gives them of
        people; of what changes later than was looked "changes_at" is null too, and the summary says nothing of time
        then. A condition on members has "members", how many there are, "members_holding", how many hold what is wanted,
        and some of both in "some_holding" and "some_lacking"; each condition has its "text".
    """
    found = _explain(definition.where, facts, raw, changes.moments)
    enough = fewest(found)
    return {
        "member": found["holds"],
        "changes_at": found["changes_at"],
        "summary": summary(found, enough, tells_time=changes.complete),
        "missing": missing(enough),
        "fewer_possible": not enough.is_certain,
        "condition": found,
    }


def _explain(
    condition: Condition, facts: GroupFacts, raw: Mapping[str, Any], moments: Mapping[Condition, int]
) -> dict[str, Any]:
    moment_us = moments.get(condition)
    changes_at = None if moment_us is None else format_time_us(moment_us)
    found: dict[str, Any] = {"text": condition_text(raw), "changes_at": changes_at}
    if isinstance(condition, All | Any_):
        kind = "all" if isinstance(condition, All) else "any"
        parts = [_explain(part, facts, of, moments) for part, of in zip(condition.parts, raw[kind], strict=True)]
        combined = all if kind == "all" else any
        found |= {"kind": kind, "parts": parts, "holds": combined(part["holds"] for part in parts)}
    elif isinstance(condition, Not):
        part = _explain(condition.part, facts, raw["not"], moments)
        found |= {"kind": "not", "parts": [part], "holds": not part["holds"]}
    else:
        found |= _leaf(condition, facts, raw)
    found["sentence"] = sentence(condition, found)
    return found


def _leaf(condition: Condition, facts: GroupFacts, raw: Mapping[str, Any]) -> dict[str, Any]:
    fact = facts[condition]
    if isinstance(condition, AudienceMember):
        return {"kind": "audience", "holds": fact.holds, "audience": condition.audience_id}
    if isinstance(condition, TraitTest):
        set_by = None
        if fact.set_by is not None:
            timestamp_us, message_id = fact.set_by
            set_by = {"message_id": message_id, "timestamp": format_time_us(timestamp_us)}
        trait = ".".join(condition.path)
        return {"kind": "trait", "holds": fact.holds, "trait": trait, "value": fact.value, "set_by": set_by}
    assert isinstance(condition, Members) and fact.members is not None  # the parser lets nothing else in
    return {
        "kind": "members",
        "holds": fact.holds,
        "of": condition_text(raw["where"]),
        "members": fact.members.number,
        "members_holding": fact.members.holding,
        "some_holding": list(fact.members.some_holding),
        "some_lacking": list(fact.members.some_lacking),
    }
