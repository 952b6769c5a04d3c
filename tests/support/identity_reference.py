"""Identity resolution once more, in the plainest way: people are sets, every rule is counted out.

Written from the rules in docs/reference/identity-rules.md, not from the resolver, and quadratic in everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace_identity.resolving.rules import PERIODS_US, Rules

from headrace.api.common.v1.event_pb2 import Event, EventKind

Id = tuple[str, str]


@dataclass(eq=False)
class Human:
    """One person: identifiers with their times, messages, traits, and the first message of each merged one."""

    first: int
    name: str
    ids: dict[Id, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    merges: int = 0


class Reference:
    """People after some events."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.people: list[Human] = []
        self.demoted: dict[str, list[Id]] = {}
        self.nobody: list[str] = []
        self.stems: dict[str, str] = {}
        self.handed_over: dict[str, set[Id]] = {}

    def play(self, events: list[Event]) -> None:
        """All events in order, each message id once."""
        for number, event in enumerate(events):
            if event.message_id not in self.demoted:
                self._one(number, event)

    def _one(self, number: int, event: Event) -> None:
        wanted: list[Id] = []
        for raw in event.identifiers:
            checked = self.rules.check(raw.namespace, raw.value)
            if not checked.rule and (raw.namespace, checked.value) not in wanted:
                wanted.append((raw.namespace, checked.value))
        wanted.sort(key=lambda i: (self.rules.rank(i[0]), i[1]))
        alias = self._alias(event, wanted)
        if alias is not None and alias not in wanted:
            # An alias's previous id stands behind the other identifiers of its namespace.
            place = sum(self.rules.rank(i[0]) <= self.rules.rank(alias[0]) for i in wanted)
            wanted.insert(place, alias)
        demoted, taken, stems = self._at_a_shared_device(event, wanted, alias)
        while not self._allowed(wanted, event.timestamp_us, alias, taken):
            demoted.append(wanted.pop())
        self.demoted[event.message_id] = demoted
        if not wanted:
            self.nobody.append(event.message_id)
            return
        found = self._holders([i for i in wanted if i not in taken])
        for identifier in taken & set(wanted):
            for human in self._holders([identifier]):
                del human.ids[identifier]
            self.handed_over.setdefault(event.message_id, set()).add(identifier)
        if stems and not found:
            self.stems[event.message_id] = stems
        if found:
            person = min(found, key=lambda h: (h.first, h.name))
        else:
            person = Human(number, event.message_id)
            self.people.append(person)
        for other in found:
            if other is not person:
                self.people.remove(other)
                person.ids |= other.ids
                person.messages += other.messages
                person.merges += other.merges + 1
        for identifier in wanted:
            person.ids.setdefault(identifier, event.timestamp_us)
        person.messages.append(event.message_id)

    def _at_a_shared_device(self, event: Event, wanted: list[Id], alias: Id | None) -> tuple[list[Id], set[Id], str]:
        """Devices that do not count, those that change hands, and who had the first of the former, by a link."""
        own = [p for p in self.rules.policies if p.source == event.source_id]
        for policy in own or [p for p in self.rules.policies if p.source is None]:
            given = [i for i in wanted if i != alias or i in self._given(event)]
            devices = [i for i in given if i[0] in policy.devices]
            people = self._holders([i for i in given if i[0] not in policy.devices])
            strange = [(i, h) for i in devices for h in self._holders([i]) if h not in people]
            if len(devices) < len(given):
                if policy.policy == "conversion" or not strange:
                    return [], set(), ""
                demoted = [i for i, _ in strange if i != alias]
                for identifier in demoted:
                    wanted.remove(identifier)
                return demoted, set(), strange[0][1].name if policy.policy == "link" else ""
            names = [n.lower().replace(" ", "").replace("_", "") for n in policy.logout_events]
            if (
                event.kind == EventKind.EVENT_KIND_TRACK
                and event.name.lower().replace("_", "").replace(" ", "") in names
            ):
                named = [(i, h) for i, h in strange if any(n not in policy.devices for n, _ in h.ids)]
                return [], {i for i, _ in (strange if policy.policy == "link" else named)}, ""
        return [], set(), ""

    def _given(self, event: Event) -> list[Id]:
        checked = [(raw.namespace, self.rules.check(raw.namespace, raw.value)) for raw in event.identifiers]
        return [(namespace, c.value) for namespace, c in checked if not c.rule]

    def _alias(self, event: Event, wanted: list[Id]) -> Id | None:
        if event.kind != EventKind.EVENT_KIND_ALIAS or not event.previous_id:
            return None
        user = self.rules.check("user_id", event.previous_id)
        if not user.rule:
            as_user = ("user_id", user.value)
            if as_user in wanted or any(as_user in h.ids for h in self.people):
                return as_user
        device = self.rules.check("anonymous_id", event.previous_id)
        return None if device.rule else ("anonymous_id", device.value)

    def _holders(self, wanted: list[Id]) -> list[Human]:
        return [h for h in self.people if any(i in h.ids for i in wanted)]

    def _allowed(self, wanted: list[Id], now_us: int, alias: Id | None, taken: set[Id]) -> bool:
        found = self._holders([i for i in wanted if i not in taken])
        together = {i: t for h in found for i, t in h.ids.items()}
        for identifier in wanted:
            together.setdefault(identifier, now_us)
        if len(found) == 1 and together == found[0].ids:
            return True
        for name in {n for n, _ in together}:
            if any(n == name for n, _ in together) and self._over(name, together):
                worst = [self._most(name, h.ids) for h in found]
                if not worst or self._most(name, together) > max(worst):
                    return False
        if len(found) > 1 and sum(h.merges for h in found) + len(found) - 1 > self.rules.max_merges:
            return False
        if len(together) > self.rules.max_identifiers:
            return False
        return len(found) < 2 or all(self._may_join(name, found, wanted, alias) for name in self.rules.protected)

    def _may_join(self, name: str, found: list[Human], wanted: list[Id], alias: Id | None) -> bool:
        """Several people who each have a protected identifier join only if each is named strongly, or by the alias."""
        having = [h for h in found if any(n == name for n, _ in h.ids)]
        strong = [i for i in wanted if self.rules.rank(i[0]) <= self.rules.rank(name)]
        named = [h for h in having if any(i in h.ids for i in strong) or (alias in wanted and alias in h.ids)]
        return len(having) < 2 or len(named) == len(having)

    def _over(self, name: str, ids: dict[Id, int]) -> bool:
        return self._most(name, ids) > self.rules.namespace(name).limit

    def _most(self, name: str, ids: dict[Id, int]) -> int:
        times = [t for (n, _), t in ids.items() if n == name]
        per = self.rules.namespace(name).per
        if per is None:
            return len(times)
        return max((sum(end - PERIODS_US[per] < t <= end for t in times) for end in times), default=0)
