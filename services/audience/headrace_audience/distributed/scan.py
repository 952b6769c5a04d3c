"""What is read of the archive before people are brought together: only what the questions need.

Conditions say which events, traits, consents, touches and namespaces they look at by the states that answer them
(`engine.conditions`), so nothing has to be said twice. What a state is not known to need is kept whole.
"""

# ruff: noqa: S608  # values are bound parameters; only constants are put into statements

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace_audience.batch.values import Parameters
from headrace_audience.engine.conditions import (
    CONSENT,
    FIRST_TOUCH,
    LAST_TOUCH,
    TRAIT,
    AttributeState,
    EventState,
    FirstState,
    IdentifierState,
    ListState,
    State,
    states_of,
)
from headrace_audience.language.definition import Definition

_COLUMN_OF = {TRAIT: "traits", CONSENT: "consents", FIRST_TOUCH: "touch", LAST_TOUCH: "touch"}


@dataclass
class _Needs:
    """What definitions look at.

    Attributes:
        names: Events by name.
        with_properties: Those of them of which properties are tested.
        columns: Columns of which every event that has something in them is looked at.
        namespaces: Namespaces of identifiers.
        everything: Whether all events are.
    """

    names: set[str] = field(default_factory=set)
    with_properties: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)
    everything: bool = False

    def add(self, state: State) -> None:
        """Look at what a state is made of."""
        if isinstance(state, FirstState):
            self.names.update(state.names)
        elif isinstance(state, EventState | ListState):
            self.names.update(state.names)
            if state.where or (isinstance(state, ListState) and state.values):
                self.with_properties.update(state.names)
        elif isinstance(state, IdentifierState):
            self.namespaces.add(state.namespace)
        elif isinstance(state, AttributeState) and state.kind in _COLUMN_OF:
            self.columns.add(_COLUMN_OF[state.kind])
        else:
            self.everything = True


def scan_sql(definitions: Iterable[Definition], parameters: Parameters) -> str:
    """Rows of `events` that give the same answers to the definitions as all rows do.

    Args:
        definitions: The audiences, and those that they name.
        parameters: Get the values.

    Returns:
        A select with the columns of `events`. Everybody has at least one row.
    """
    needs = _Needs()
    for definition in definitions:
        for state in states_of(definition).values():
            needs.add(state)
    if needs.everything:
        return "SELECT * FROM events"
    rows = [f"kind = 'track' AND list_contains({parameters.bind(sorted(needs.names))}, name)"] if needs.names else []
    rows += [f"{column} IS NOT NULL" for column in sorted(needs.columns)]
    kept = {
        "properties": f"CASE WHEN list_contains({parameters.bind(sorted(needs.with_properties))}, name)"
        " THEN properties END"
        if needs.with_properties
        else "CAST(NULL AS VARCHAR)",
        "namespaces": "CAST(NULL AS VARCHAR[])",
    }
    kept |= dict.fromkeys(sorted({*_COLUMN_OF.values()} - needs.columns), "CAST(NULL AS VARCHAR)")
    replaced = ", ".join(f"{expression} AS {column}" for column, expression in kept.items())
    selects = [f"SELECT * REPLACE ({replaced}) FROM events WHERE {' OR '.join(f'({r})' for r in rows) or 'false'}"]
    nothing = "'' AS message_id, 'page' AS kind, '' AS name"
    selects.append(f"SELECT profile, CAST(0 AS BIGINT) AS timestamp_us, {nothing} FROM events GROUP BY profile")
    for namespace in sorted(needs.namespaces):
        bound = parameters.bind(namespace)
        selects.append(
            f"SELECT profile, min(timestamp_us) AS timestamp_us, {nothing}, [{bound}] AS namespaces"
            f" FROM events WHERE list_contains(namespaces, {bound}) GROUP BY profile"
        )
    return " UNION ALL BY NAME ".join(selects)
