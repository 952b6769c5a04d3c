"""The computed traits of a workspace, compiled: which events concern which of them, and what each event adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.domain.computed_traits.definition import COUNT, Definition
from headrace.domain.predicates import compile_predicates, decode_object, value_at
from headrace_identity.computed.buckets import BucketKey, Kept, day_for, needed_until_us, unite
from headrace_identity.computed.summaries import FUNCTIONS, Function

_TRACK = EventKind.EVENT_KIND_TRACK


@dataclass(frozen=True)
class ComputedTrait:
    """A computed trait as it is kept.

    Attributes:
        id: Its id.
        generation: Names what is kept of it; each definition of a trait has one of its own, never used before.
        definition: What it computes.
        ready: Whether all stored events are in it.
    """

    id: str
    generation: str
    definition: Definition
    ready: bool
    function: Function = field(init=False, repr=False, compare=False)
    _passes: Callable[[Mapping[str, Any]], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "function", FUNCTIONS[self.definition.function])
        object.__setattr__(self, "_passes", compile_predicates(self.definition.where))

    def of(self, properties: Mapping[str, Any], time_us: int) -> Any | None:
        """The summary of one event of one of its names; None when the event does not count."""
        if self.definition.where and not self._passes(properties):
            return None
        value = None if self.definition.function == COUNT else value_at(properties, self.definition.path)
        return self.function.of(value, time_us)


class ComputedTraits:
    """All computed traits of a workspace."""

    def __init__(self, traits: Sequence[ComputedTrait] = ()) -> None:
        """Compile these."""
        self.all = tuple(traits)
        self.by_generation = {t.generation: t for t in traits}
        self._by_name: dict[str, list[ComputedTrait]] = {}
        for trait in traits:
            for name in trait.definition.names:
                self._by_name.setdefault(name, []).append(trait)

    @property
    def names(self) -> list[str]:
        """Names of the events that concern any of them."""
        return list(self._by_name)

    def of_event(self, event: Event) -> Sequence[ComputedTrait]:
        """Those that an event may concern, by its kind and name."""
        return self._by_name.get(event.name, ()) if event.kind == _TRACK else ()


Additions = dict[BucketKey, dict[str, Kept]]
"""What events add to buckets, by generation."""


def additions(traits: ComputedTraits, events: Iterable[tuple[str, Event]], now_us: int) -> Additions:
    """What events add to the buckets of their parts.

    Args:
        traits: The computed traits of the workspace.
        events: (part, event) pairs, in any order.
        now_us: The clock: a bucket that no window can reach any more is not made.
    """
    found: Additions = {}
    for part, event in events:
        concerned = traits.of_event(event)
        if not concerned or not part:
            continue
        properties = decode_object(event.properties)
        time_us = event.timestamp_us
        for trait in concerned:
            summary = trait.of(properties, time_us)
            if summary is None:
                continue
            within_us = trait.definition.within_us
            day = day_for(within_us, time_us)
            if day is not None and within_us is not None and needed_until_us(within_us, day) <= now_us:
                continue
            bucket = found.setdefault(BucketKey(part, day), {})
            kept = Kept(time_us, time_us, summary)
            bucket[trait.generation] = unite(trait.function, bucket.get(trait.generation), kept)
    return found
