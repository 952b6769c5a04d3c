"""Random histories of few people who share nearly everything."""

from __future__ import annotations

import random

from headrace.api.common.v1.event_pb2 import Event
from tests.support.identity import event


def history(seed: int, workspace_id: str, *, aliases: bool, size: int = 50) -> list[Event]:
    """Events over few identifiers, so that nearly all of them collide; some come twice."""
    chance = random.Random(seed)
    users = [f"u{i}" for i in range(4)]
    pools = {"user_id": users, "email": [f"e{i}@shop.example" for i in range(4)], "anonymous_id": ["d1x", "d2x", "d3x"]}
    events = []
    for number in range(size):
        identifiers = [
            (namespace, chance.choice(pool)) for namespace, pool in pools.items() if chance.random() < 0.5
        ] or [("anonymous_id", "d1x")]
        previous = chance.choice([*users, "d1x", "d2x", "u9"]) if aliases and chance.random() < 0.2 else ""
        traits = {chance.choice("xy"): number} if chance.random() < 0.4 else None
        events.append(
            event(
                f"m{number:03}",
                *identifiers,
                previous_id=previous,
                traits=traits,
                day=chance.choice([0, 1, 2, 30]),
                workspace_id=workspace_id,
            )
        )
    return events + chance.sample(events, size // 10)
