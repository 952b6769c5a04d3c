"""Manual links: identifiers that somebody forced together or apart. Pure functions.

Links hold for all of history and over all other rules. Those that force together chain up: what is linked with the
same thing is one thing, a *class*. What forces two identifiers apart keeps their classes apart. So links contradict
each other exactly when one would keep a class apart from itself; `Links.contradiction` finds that before a link is
stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Literal, NamedTuple

from headrace_identity.resolving.rules import Identifier

Kind = Literal["together", "apart"]


class ManualLink(NamedTuple):
    """Two identifiers that somebody forced together or apart.

    Attributes:
        id: Its id.
        kind: "together" or "apart".
        first: One identifier, normalised.
        second: Another one, normalised.
        reason: Why, for the record.
        undone_merge: Id of the profile whose merge was undone by it; "" when it was added by hand.
        created_us: When it was made, in microseconds; 0 when it is not stored yet.
    """

    id: str
    kind: Kind
    first: Identifier
    second: Identifier
    reason: str = ""
    undone_merge: str = ""
    created_us: int = 0

    @property
    def pair(self) -> frozenset[Identifier]:
        """The two identifiers, in no order."""
        return frozenset((self.first, self.second))


class Links:
    """Manual links of a workspace, compiled for the resolver."""

    def __init__(self, links: Iterable[ManualLink] = ()) -> None:
        """Compile links that do not contradict each other."""
        self.by_id: dict[str, ManualLink] = {link.id: link for link in sorted(links, key=lambda link: link.id)}
        self._naming: dict[Identifier, list[ManualLink]] = {}
        for link in self.by_id.values():
            self._naming.setdefault(link.first, []).append(link)
            self._naming.setdefault(link.second, []).append(link)
        self._joined: dict[Identifier, list[tuple[Identifier, str]]] = {}
        for link in self.by_id.values():
            if link.kind == "together":
                self._joined.setdefault(link.first, []).append((link.second, link.id))
                self._joined.setdefault(link.second, []).append((link.first, link.id))
        self._classes: dict[Identifier, tuple[Identifier, ...]] = {}
        for identifier in self._joined:
            if identifier not in self._classes:
                members = tuple(sorted(self._chains_from(identifier)))
                self._classes.update(dict.fromkeys(members, members))
        self._apart: dict[Identifier, dict[Identifier, str]] = {}
        for link in self.by_id.values():
            if link.kind == "apart":
                first, second = self.one_of(link.first), self.one_of(link.second)
                self._apart.setdefault(first, {}).setdefault(second, link.id)
                self._apart.setdefault(second, {}).setdefault(first, link.id)

    def __bool__(self) -> bool:
        return bool(self.by_id)

    @property
    def any_apart(self) -> bool:
        """Whether anything is forced apart."""
        return bool(self._apart)

    @property
    def any_together(self) -> bool:
        """Whether anything is forced together."""
        return bool(self._classes)

    def one_of(self, identifier: Identifier) -> Identifier:
        """The identifier that stands for the class of this one: itself when it is linked with nothing."""
        members = self._classes.get(identifier)
        return members[0] if members is not None else identifier

    def partners(self, identifier: Identifier) -> Sequence[Identifier]:
        """The class of an identifier, without itself."""
        members = self._classes.get(identifier)
        return () if members is None else [m for m in members if m != identifier]

    def apart_from(self, one: Identifier) -> Mapping[Identifier, str]:
        """What the class that this identifier stands for is kept apart from, with the link that does it."""
        return self._apart.get(one, {})

    def keeps_apart(self, groups: Sequence[Set[Identifier]]) -> str | None:
        """The first link that keeps apart what stands in two of these groups and in none of them together, or None.

        Args:
            groups: Identifiers that stand for their classes.
        """
        together = frozenset[Identifier]().union(*groups)
        broken = [
            link_id
            for one in together
            for other, link_id in self.apart_from(one).items()
            if other in together and not any(one in group and other in group for group in groups)
        ]
        return min(broken, default=None)

    def chain(self, start: Identifier, end: Identifier) -> list[str]:
        """Ids of the links that force two identifiers together, in order; empty when none do, or they are the same."""
        steps = self._chains_from(start)
        chain: list[str] = []
        at = end
        while at != start:
            if at not in steps:
                return []
            at, link_id = steps[at]
            chain.append(link_id)
        return chain[::-1]

    def concerning(self, identifiers: Iterable[Identifier]) -> list[ManualLink]:
        """The links that name any of these identifiers, or what is forced together with one, by id."""
        named = {m for identifier in identifiers for m in (identifier, *self.partners(identifier))}
        found = {link.id: link for identifier in named for link in self._naming.get(identifier, ())}
        return [found[link_id] for link_id in sorted(found)]

    def same(self, link: ManualLink) -> ManualLink | None:
        """The link that says the same already, or None."""
        return next(
            (known for known in self.by_id.values() if (known.kind, known.pair) == (link.kind, link.pair)), None
        )

    def contradiction(self, link: ManualLink) -> list[str] | None:
        """What a new link contradicts.

        Returns:
            Ids of the links that say the opposite, in order; empty when the link contradicts itself, because it is of a
            thing with itself; None when it contradicts nothing.
        """
        if link.first == link.second:
            return []
        first, second = self.one_of(link.first), self.one_of(link.second)
        if link.kind == "apart":
            return self.chain(link.first, link.second) if first == second else None
        keeping = self._apart.get(first, {}).get(second)
        if keeping is None:
            return None
        apart = self.by_id[keeping]
        near, far = apart.first, apart.second
        if self.one_of(near) != first:
            near, far = far, near
        return [*self.chain(link.first, near), keeping, *self.chain(far, link.second)]

    def _chains_from(self, start: Identifier) -> dict[Identifier, tuple[Identifier, str]]:
        """Everything that is forced together with an identifier.

        Returns:
            For each what comes before it on the shortest chain, and by which link; the start comes before itself.
        """
        steps: dict[Identifier, tuple[Identifier, str]] = {start: (start, "")}
        waiting = deque([start])
        while waiting:
            at = waiting.popleft()
            for other, link_id in self._joined.get(at, ()):
                if other not in steps:
                    steps[other] = (at, link_id)
                    waiting.append(other)
        return steps


NO_LINKS = Links()
"""Of a workspace where nobody linked anything by hand."""
