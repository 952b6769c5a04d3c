"""What has to be done so that a platform is as the files say. Pure: from resources and the stored state to steps.

Nothing is ever deleted. Steps are in an order in which each can be carried out: what others refer to comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.cli.config.kinds import KINDS
from headrace.cli.config.resources import Resource
from headrace.cli.config.yamldoc import Problem, ProblemsFound
from headrace.plugins.masking import MASK, mask_settings

CREATE = "create"
UPDATE = "update"
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Stored:
    """A resource as the platform has it, in the form of a file: the same keys, all of them."""

    values: Mapping[str, Any]
    etag: str = ""
    note: str = ""
    """What of it is not in effect yet."""


@dataclass(frozen=True)
class Connector:
    """What is known of a connector."""

    schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of its settings."""
    capabilities: tuple[str, ...] = ()
    """Such as "list_sync"."""


@dataclass(frozen=True)
class Platform:
    """What the platform has."""

    resources: Mapping[tuple[str, str], Stored]
    """By kind and id."""
    connectors: Mapping[str, Connector] | None = None
    """By name; None when nobody asked."""


@dataclass(frozen=True)
class Change:
    """One difference: a path such as "settings.url", what is stored and what is wanted."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Step:
    """What to do about one resource.

    Args:
        resource: As wanted.
        action: CREATE, UPDATE or UNCHANGED.
        changes: What differs, for UPDATE; all values, for CREATE. Secrets are masked.
        secrets: Paths of secrets that the platform shows masked, so that only it can say whether they differ.
        etag: Of the stored resource.
        note: What of the stored resource is not in effect yet.
    """

    resource: Resource
    action: str
    changes: tuple[Change, ...] = ()
    secrets: tuple[str, ...] = ()
    etag: str = ""
    note: str = ""

    @property
    def keys(self) -> list[str]:
        """Keys of the resource that have to be sent."""
        paths = [*(change.path for change in self.changes), *self.secrets]
        return list(dict.fromkeys(path.partition(".")[0].partition("[")[0] for path in paths))


def make_plan(wanted: Sequence[Resource], platform: Platform) -> list[Step]:
    """The steps, those that change nothing too.

    Raises:
        ProblemsFound: Something in the files does not fit what the platform has.
    """
    problems = [problem for resource in wanted for problem in _check(resource, wanted, platform)]
    if problems:
        raise ProblemsFound(problems)
    return [_step(resource, platform) for resource in _in_order(wanted)]


def differences(before: Any, after: Any, path: str) -> Iterator[Change]:
    """The differences of two JSON values, as deep as they are alike in form."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*before, *(n for n in after if n not in before)]:
            yield from differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{path}[{index}]")
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield Change(path, before, after)


def masked(value: Any, path: str = "") -> Iterator[str]:
    """Paths of the texts that are the mask of a secret."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from masked(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from masked(inner, f"{path}[{index}]")
    elif value == MASK:
        yield path


def _step(resource: Resource, platform: Platform) -> Step:
    shown = _shown_values(resource, platform)
    stored = platform.resources.get((resource.kind, resource.id))
    if stored is None:
        keys = KINDS[resource.kind].keys
        changes = [
            Change(name, None, shown[name])
            for name in keys
            if name in shown and _empty(shown[name]) not in (None, keys[name].default)
        ]
        return Step(resource, CREATE, tuple(changes))
    changes = []
    for name, value in shown.items():
        changes += differences(_empty(stored.values.get(name)), _empty(value), name)
    action = UPDATE if changes else UNCHANGED
    return Step(resource, action, tuple(changes), _secrets(resource, stored), stored.etag, stored.note)


def _shown_values(resource: Resource, platform: Platform) -> Mapping[str, Any]:
    """The values with secrets masked, as the platform shows them."""
    if resource.kind != "Destination":
        return resource.values
    connector = (platform.connectors or {}).get(resource.values["connector"], Connector())
    return {**resource.values, "settings": mask_settings(connector.schema, resource.values["settings"])}


def _secrets(resource: Resource, stored: Stored) -> tuple[str, ...]:
    """Secrets that are given in the clear and that the platform shows masked."""
    if resource.kind != "Destination":
        return ()
    hidden = set(masked(stored.values["settings"])) - set(masked(resource.values["settings"]))
    given = differences(stored.values["settings"], resource.values["settings"], "")
    return tuple(f"settings.{change.path}" for change in given if change.path in hidden and change.after is not None)


def _empty(value: Any) -> Any:
    """Nothing in its one form: an empty mapping, list or text says the same as an absent one."""
    return None if value in ({}, [], "") else value


def _check(resource: Resource, wanted: Sequence[Resource], platform: Platform) -> Iterator[Problem]:
    stored = platform.resources.get((resource.kind, resource.id))
    described = {(r.kind, r.id) for r in wanted}
    for name, key in KINDS[resource.kind].keys.items():
        value = resource.values.get(name)
        if key.of and value and (key.of, value) not in described and (key.of, value) not in platform.resources:
            yield Problem(resource.place_of(name), f"there is no {key.of} {value!r}, in the files or on the platform")
        if key.fixed and stored is not None and _empty(stored.values.get(name)) != _empty(value):
            yield Problem(
                resource.place_of(name),
                f"{name} of {resource.title} is {stored.values.get(name)!r} and cannot be changed: "
                "delete it first, or choose another id",
            )
    if resource.kind == "Audience":
        for other in references(resource.values["definition"]):
            if ("Audience", other) not in described and ("Audience", other) not in platform.resources:
                yield Problem(
                    resource.place_of("definition"), f"there is no Audience {other!r}, in the files or on the platform"
                )
    if resource.kind == "Destination":
        yield from _check_settings(resource, stored, platform)
    if resource.kind == "Sync":
        yield from _check_capability(resource, wanted, platform)


def _check_settings(resource: Resource, stored: Stored | None, platform: Platform) -> Iterator[Problem]:
    settings, place = resource.values["settings"], resource.place_of("settings")
    kept = set(masked(stored.values["settings"])) if stored is not None else set()
    for path in masked(settings):
        if path not in kept:
            yield Problem(place, f"settings.{path} is a mask, and there is no stored secret that it could stand for")
    if platform.connectors is None:
        return
    connector = platform.connectors.get(resource.values["connector"])
    if connector is None:
        offered = ", ".join(sorted(platform.connectors)) or "none"
        yield Problem(resource.place_of("connector"), f"there is no such connector; there are: {offered}")
        return
    known = connector.schema.get("properties", {})
    if connector.schema.get("additionalProperties") is False:
        for name in settings:
            if name not in known:
                yield Problem(place, f"settings has no {name!r}; there are: {', '.join(known)}")
    for name in connector.schema.get("required", ()):
        if name not in settings:
            yield Problem(place, f"settings needs {name}")


def _check_capability(sync: Resource, wanted: Sequence[Resource], platform: Platform) -> Iterator[Problem]:
    destination_id, type_ = sync.values["destination"], sync.values["type"]
    described = [r.values for r in wanted if (r.kind, r.id) == ("Destination", destination_id)]
    stored = platform.resources.get(("Destination", destination_id))
    values = described[0] if described else stored.values if stored is not None else {}
    connector = (platform.connectors or {}).get(values.get("connector", ""))
    needed = "forwarding" if type_ == "forwarding" else f"{type_}_sync"
    if connector is not None and needed not in connector.capabilities:
        yield Problem(
            sync.place_of("type"), f"connector {values['connector']!r} of {destination_id} cannot do {needed}"
        )


def references(definition: Any) -> set[str]:
    """Ids of the audiences that a definition names as conditions."""
    found: set[str] = set()
    if isinstance(definition, Mapping):
        condition = definition.get("where") if "where" in definition and "event" not in definition else definition
        waiting = [condition]
        while waiting:
            node = waiting.pop()
            if not isinstance(node, Mapping):
                continue
            if isinstance(node.get("audience"), str):
                found.add(node["audience"])
            waiting += [*_list(node.get("all")), *_list(node.get("any")), node.get("not")]
            if "members" in node:
                waiting.append(node.get("where"))
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _in_order(wanted: Sequence[Resource]) -> Iterable[Resource]:
    for kind in KINDS:
        of_kind = [r for r in wanted if r.kind == kind]
        yield from _audiences_in_order(of_kind) if kind == "Audience" else of_kind


def _audiences_in_order(audiences: Sequence[Resource]) -> Iterator[Resource]:
    """Each after those that it names.

    Raises:
        ProblemsFound: They name each other in a circle.
    """
    waiting = {a.id: a for a in audiences}
    while waiting:
        free = [a for a in waiting.values() if not references(a.values["definition"]) & (waiting.keys() - {a.id})]
        itself = [a for a in free if a.id in references(a.values["definition"])]
        if itself or not free:
            circle = itself or list(waiting.values())
            text = f"the audiences {', '.join(sorted(a.id for a in circle))} name each other in a circle"
            raise ProblemsFound([Problem(circle[0].place_of("definition"), text)])
        for audience in free:
            yield waiting.pop(audience.id)


def described(step: Step) -> list[str]:
    """Lines that tell a person what a step does."""
    sign = {CREATE: "+", UPDATE: "~", UNCHANGED: "="}[step.action]
    lines = [f"{sign} {step.resource.title}"]
    for change in step.changes:
        before = "" if step.action == CREATE else f"{_shown(change.before)} -> "
        lines.append(f"    {change.path}: {before}{_shown(change.after)}")
    lines += [f"    {path}: a secret; compared when it is applied" for path in step.secrets]
    return lines


def _shown(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)
