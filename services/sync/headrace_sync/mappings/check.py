"""Checking mappings against real people: how many would match by each field, and what could fill those that are empty.

People go the way that they go in delivery: profile, mapping, the connector's own form of the value, consent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.connector import wire
from headrace.plugins.errors import PluginError
from headrace.plugins.functions import as_text
from headrace.plugins.host import PluginHost
from headrace.plugins.mapping import CompiledMapping, FieldMapping, MappingError, compile_expression, compile_mapping
from headrace.rpc import names
from headrace.rpc.errors import invalid_argument, not_found, wrong_state
from headrace_sdk import FieldType
from headrace_sync.config import DestinationConfig
from headrace_sync.mappings.rules import fits, known_names, propose, remarks_on
from headrace_sync.people.audiences import Audiences
from headrace_sync.people.consents import refusal
from headrace_sync.people.profiles import Person, Profiles

MOST_PEOPLE = 500
"""So many people are looked at: shares are then within about 5 % of all."""
_EMPTY: tuple[Any, ...] = (None, "", [], {})


@dataclass(slots=True)
class CheckedField:
    """A field under a mapping; see the proto."""

    name: str
    expression: str = ""
    proposal: str = ""
    given: int = 0
    usable: int = 0
    consented: int = 0
    wrong_type: int = 0
    proposal_given: int = 0
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CheckedMapping:
    """What a check found; see the proto."""

    sampled: int
    problem: str
    fields: Sequence[CheckedField]


class MappingChecks:
    """Checks mappings."""

    def __init__(self, host: PluginHost, profiles: Profiles, audiences: Audiences) -> None:
        """Look at people through these."""
        self._host = host
        self._profiles = profiles
        self._audiences = audiences

    async def check(self, destination: DestinationConfig, mapping: str, audience: str) -> CheckedMapping:
        """Check a mapping.

        Args:
            destination: Where it would be used.
            mapping: The mapping as JSON; empty for the connector's own.
            audience: Name of the audience whose members are looked at; empty for people of the workspace.

        Raises:
            ApiError: NOT_FOUND or INVALID_ARGUMENT for the audience; FAILED_PRECONDITION when the plugin is not
                loaded or fails.
            grpc.aio.AioRpcError: Identity or the audience service does not answer.
        """
        info = self._host.connectors().get(destination.connector)
        if info is None:
            raise wrong_state("PLUGIN_MISSING", f"The plugin of connector {destination.connector!r} is not loaded.")
        people = await self.people(destination.workspace_id, audience)
        known = known_names(person.profile for person in people)
        found = {f.name: CheckedField(f.name, proposal=propose(f, known)) for f in info.fields}
        for one in found.values():
            if one.proposal:
                expression = compile_expression(one.name, one.proposal)
                one.proposal_given = sum(expression(_document(p)) not in _EMPTY for p in people)
        try:
            compiled = compile_mapping(mapping, info)
        except MappingError as error:
            return CheckedMapping(len(people), str(error), list(found.values()))
        for mapped in compiled.fields:
            one = found[mapped.field.name]
            one.expression = mapped.source
            one.remarks = remarks_on(mapped.source, known)
            try:
                await self._look(one, mapped, destination, info, people)
            except PluginError as error:
                raise wrong_state("PLUGIN_FAILED", f"The plugin failed: {error.reason}.") from None
        for one in found.values():
            if one.given >= one.proposal_given:
                one.proposal = one.expression  # nothing better is known
                one.proposal_given = one.given
        return CheckedMapping(len(people), "", list(found.values()))

    async def people(self, workspace_id: str, audience: str, most: int = MOST_PEOPLE) -> list[Person]:
        """Some members of an audience, or people of the workspace.

        Raises:
            ApiError: NOT_FOUND or INVALID_ARGUMENT for the audience.
            grpc.aio.AioRpcError: Identity or the audience service does not answer.
        """
        if not audience:
            return await self._profiles.some(workspace_id, most)
        owner, _ = names.parse(names.AUDIENCE, audience, "audience")
        if owner != workspace_id:
            raise invalid_argument("audience", "must be of the same workspace")
        found = await self._audiences.get(audience)
        if found is None:
            raise not_found(audience)
        if json.loads(found.definition).get("of") == "groups":
            raise invalid_argument("audience", "is an audience of groups; destinations take people")
        members, _ = await self._audiences.page(audience, most, "")
        return list((await self._profiles.get(workspace_id, [m.profile_id for m in members])).values())

    async def _look(
        self,
        one: CheckedField,
        mapped: FieldMapping,
        destination: DestinationConfig,
        info: wire.ConnectorInfo,
        people: Sequence[Person],
    ) -> None:
        """Count what becomes of people's values."""
        values: list[tuple[Person, str]] = []
        failed = 0
        for person in people:
            try:
                value = evaluate(mapped, person)
            except MappingError:
                failed += 1
                continue
            if value in _EMPTY:
                continue
            one.given += 1
            if not fits(mapped.field.type, value):
                one.wrong_type += 1
            elif mapped.field.type in (FieldType.OBJECT, FieldType.LIST):
                one.usable += 1
                one.consented += refusal(destination.required_consents, person.consents) is None
            else:
                first = value[0] if isinstance(value, list) else value
                values.append((person, str(as_text(first))))
        if failed:
            one.remarks.append(f"the expression cannot be computed for {failed} of those looked at")
        if values:
            answers = await self._host.normalise(info.name, [(one.name, text) for _, text in values])
            for (person, _), answer in zip(values, answers, strict=True):
                if answer.rejected is None:
                    one.usable += 1
                    one.consented += refusal(destination.required_consents, person.consents) is None


def wrong_types(mapping: str, compiled: CompiledMapping, people: Sequence[Person]) -> tuple[str, str] | None:
    """The first field that a mapping fills with values of a wrong type for everybody who has one: (field, why).

    Fields that the mapping does not name, and expressions that read the event, are not judged.
    """
    named = json.loads(mapping) if mapping.strip() else {}
    for mapped in compiled.fields:
        if mapped.field.name not in named or "event" in mapped.source:
            continue
        values = []
        for person in people:
            try:
                values.append(evaluate(mapped, person))
            except MappingError:
                continue  # it fails on this person alone, and is told of each delivery
        given = [value for value in values if value not in _EMPTY]
        if given and not any(fits(mapped.field.type, value) for value in given):
            kind = mapped.field.type.value
            return mapped.field.name, f"gives no {kind} for any of the {len(given)} people looked at who have a value"
    return None


def evaluate(mapped: FieldMapping, person: Person) -> Any:
    """What an expression gives for a person without an event.

    Raises:
        MappingError: It cannot be computed.
    """
    return CompiledMapping((mapped,)).values(_document(person))[mapped.field.name]


def _document(person: Person) -> dict[str, Any]:
    return {"profile": person.profile.document(), "event": None}
