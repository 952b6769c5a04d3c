"""Examples on which the evaluators of audiences once disagreed, kept as JSON: tests/cases/audience_disagreements/.

A property test that fails prints its smallest example in this form (see kept()): save what it prints in a file there.
With a sentence of what was wrong as "why" it is a case from then on.

A case::

    {"why": "...", "audience": ID, "audiences": {ID: DEFINITION or [PROFILE, ...]}, "computed": {ID: DEFINITION},
     "events": [EVENT, ...], "steps": [STEP, ...], "at": TIME,
     "expect": {PROFILE: {"member": true, "since": TIME or null, "changes_at": TIME or null}}}

Events are lines as `headrace audience eval --events` takes them, in the order in which they came. Steps say how they
came, where that matters (see `audience_lives`); without any they come one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace_audience.offline.facts import Fact, facts_of_lines
from headrace_audience.offline.groups import GroupReference
from headrace_audience.offline.reference import Reference
from hypothesis import note

from headrace.domain.times import format_time_us, parse_time_us
from tests.support.audience_histories import Asked

FOLDER = Path(__file__).parents[1] / "cases" / "audience_disagreements"

Step = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Audiences, a history and a moment."""

    asked: Asked
    facts: Sequence[Fact]
    at_us: int
    steps: Sequence[Step] = ()
    why: str = ""
    expect: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The case as it is kept."""
        return {
            "why": self.why,
            "audience": list(self.asked.audiences)[-1],
            "audiences": self.asked.audiences,
            **({"computed": self.asked.computed} if self.asked.computed else {}),
            "events": [line_of(fact) for fact in self.facts],
            **({"steps": list(self.steps)} if self.steps else {}),
            "at": format_time_us(self.at_us),
            "expect": self.expect,
        }


def read(path: Path) -> Case:
    """A case of a file."""
    raw = json.loads(path.read_text())
    audiences = {name: found for name, found in raw["audiences"].items() if name != raw["audience"]}
    asked = Asked({**audiences, raw["audience"]: raw["audiences"][raw["audience"]]}, raw.get("computed", {}))
    facts = list(facts_of_lines(map(json.dumps, raw["events"])))
    return Case(asked, facts, parse_time_us(raw["at"]), raw.get("steps", ()), raw["why"], raw["expect"])


def expected(asked: Asked, facts: Iterable[Fact], at_us: int) -> dict[str, dict[str, Any]]:
    """What the reference says of everybody; of groups only whether they are in."""
    facts = list(facts)
    if asked.last.of == "groups":
        groups = GroupReference(facts, asked.meanings)
        members = groups.members(asked.last, at_us)
        return {group_id: {"member": group_id in members} for group_id in groups.groups}
    reference = Reference(facts, asked.meanings)
    return {
        profile: answer(
            reference.holds(asked.last.where, profile, at_us),
            reference.since(asked.last, profile, at_us),
            reference.next_change(asked.last, profile, at_us),
        )
        for profile in reference.profiles
    }


def answer(member: bool, since_us: int | None, changes_at_us: int | None) -> dict[str, Any]:  # as kept
    """What is said of one person."""
    since, changes = (None if us is None else format_time_us(us) for us in (since_us, changes_at_us))
    return {"member": member, "since": since, "changes_at": changes}


def line_of(fact: Fact) -> dict[str, Any]:
    """An event as a line that names its profile."""
    is_group = fact.kind == "group"
    context = {
        **fact.context,
        **({"consent": dict(fact.consents)} if fact.consents else {}),
        **({"traits": dict(fact.traits)} if is_group and fact.traits else {}),
    }
    traits = fact.group_traits if is_group else fact.traits
    found: dict[str, Any] = {
        "profile": fact.profile or None,
        "timestamp": format_time_us(fact.timestamp_us),
        "messageId": fact.message_id,
        "type": fact.kind,
        "event" if fact.kind == "track" else "name": fact.name,
        "properties": dict(fact.properties),
        "traits": dict(traits),
        "identifiers": dict(fact.identifiers),
        "context": context,
        "groupId": fact.group_id,
    }
    return {key: value for key, value in found.items() if value or key == "profile"}


@contextmanager
def kept(
    asked: Asked,
    facts: Sequence[Fact],
    at_us: int,
    steps: Sequence[Step] = (),
    left: Callable[[], Sequence[Fact]] | None = None,
) -> Iterator[None]:
    """Around what compares evaluators: when it fails, the example is printed as a case.

    Args:
        asked: The audiences.
        facts: The events, in the order in which they come; a list that grows meanwhile is printed as it is then.
        at_us: The moment that is asked for; with steps it is that of the last step that says one.
        steps: How the events came so far; a list that grows meanwhile.
        left: The events that there are after the steps, when that is not all of them.
    """
    try:
        yield
    except Exception:
        last = next((step["clock"] for step in reversed(steps) if "clock" in step), None)
        at_us = parse_time_us(last) if last else at_us
        expect = expected(asked, facts if left is None else left(), at_us)
        case = Case(asked, list(facts), at_us, list(steps), expect=expect)
        note(f"To keep this example, save it as {FOLDER.name}/NAME.json:\n{printed(case)}")
        raise


def printed(case: Case) -> str:
    """The text of a case's file: an event, a step or an audience in a line."""
    lines = []
    for key, value in case.as_json().items():
        if isinstance(value, list):
            parts = ",\n".join(f"    {json.dumps(part, ensure_ascii=False)}" for part in value)
            text = f"[\n{parts}\n  ]" if value else "[]"
        elif isinstance(value, dict):
            parts = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in value.items())
            text = f"{{\n{parts}\n  }}" if value else "{}"
        else:
            text = json.dumps(value, ensure_ascii=False)
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
