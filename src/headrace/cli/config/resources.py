"""From documents to resources: every key known, every value of its type, every reference to something."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.cli.config.kinds import KINDS, Holds, Key, Kind
from headrace.cli.config.yamldoc import Document, Problem, ProblemsFound, read_documents
from headrace.rpc.names import ID_RULE, is_chosen_id


@dataclass(frozen=True)
class Resource:
    """A resource as a file describes it.

    Args:
        kind: Name of its kind.
        id: Last part of its name.
        values: By key; an absent switch is not in it, other absent keys have their defaults.
        place: File and line where it begins.
        places: File and line of each key.
    """

    kind: str
    id: str
    values: Mapping[str, Any]
    place: str = ""
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """As people speak of it."""
        return f"{self.kind} {self.id}"

    def place_of(self, key: str) -> str:
        """Where a key stands, else where the resource begins."""
        return self.places.get(key, self.place)


def read_resources(files: Iterable[tuple[str, str]], environment: Mapping[str, str]) -> list[Resource]:
    """The resources in files.

    Args:
        files: (name, text) pairs.
        environment: Variables for `${NAME}`.

    Raises:
        ProblemsFound: Everything that is wrong with them, in order.
    """
    problems: list[Problem] = []
    resources: list[Resource] = []
    for name, text in files:
        try:
            documents = read_documents(text, name, environment)
        except ProblemsFound as found:
            problems += found.problems
            continue
        for document in documents:
            checker = _Checker(document)
            resource = checker.resource()
            problems += checker.problems
            if resource is not None:
                resources.append(resource)
    problems += _duplicates(resources)
    if problems:
        raise ProblemsFound(problems)
    return resources


class _Checker:
    """Checks one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[Problem] = []

    def resource(self) -> Resource | None:
        """The resource, or None when its kind or id is wrong; problems are noted."""
        raw = self._document.value
        if not isinstance(raw, dict):
            self._note("", "a document is a mapping with kind, id and more")
            return None
        kind = self._kind(raw.get("kind"))
        id = raw.get("id")
        if "id" not in raw:
            self._note("", "id is missing")
        elif not isinstance(id, str) or not is_chosen_id(id):
            self._note("id", f"id must be {ID_RULE}" + ("" if isinstance(id, str) else ", quoted if it is a number"))
        if kind is None:
            return None
        if kind.only_id and isinstance(id, str) and id != kind.only_id:
            self._note("id", f"a workspace has one {kind.name}: id must be {kind.only_id}")
        self._unknown_keys(raw, kind)
        values = {name: self._value(name, key, raw[name]) for name, key in kind.keys.items() if _given(raw, name)}
        for name, key in kind.keys.items():
            if name not in values:
                if key.required:
                    self._note("", f"{kind.name} needs {name}: {key.help[0].lower()}{key.help[1:]}")
                elif not key.switch:
                    values[name] = key.default
        if "display_name" in kind.keys:
            values["display_name"] = values["display_name"] or str(id)
        if self.problems:
            return None
        resource = Resource(kind.name, str(id), values, self._document.place, self._document.places)
        for check in _CHECKS.get(kind.name, ()):
            self.problems += check(resource)
        if kind.name in _IN_FULL and not self.problems:
            return replace(resource, values=_IN_FULL[kind.name](resource.values))
        return resource

    def _kind(self, name: Any) -> Kind | None:
        if name is None:
            self._note("", f"kind is missing: one of {', '.join(KINDS)}")
            return None
        if not isinstance(name, str) or name not in KINDS:
            self._note("kind", f"there is no kind {name!r}{_near(name, KINDS)}: it is one of {', '.join(KINDS)}")
            return None
        return KINDS[name]

    def _unknown_keys(self, raw: Mapping[str, Any], kind: Kind) -> None:
        known = ["kind", "id", *kind.keys]
        for name in raw:
            if name not in known:
                self._note(name, f"{kind.name} has no key {name!r}{_near(name, known)}")

    def _value(self, name: str, key: Key, value: Any) -> Any:
        wanted = _TYPES[key.holds]
        if not wanted.fits(value):
            self._note(name, f"{name} must be {wanted.said}")
        elif key.holds is Holds.CHOICE and value.lower() not in key.choices:
            self._note(name, f"{name} must be one of {', '.join(key.choices)}")
        elif key.holds is Holds.CHOICE:
            return value.lower()
        elif key.holds is Holds.REFERENCE and not is_chosen_id(value):
            self._note(name, f"{name} must be the id of a {key.of}: {ID_RULE}")
        elif key.required and value == "":
            self._note(name, f"{name} must not be empty")
        return value

    def _note(self, key: str, text: str) -> None:
        self.problems.append(Problem(self._document.places.get(key, self._document.place), text))


@dataclass(frozen=True)
class _Type:
    fits: Callable[[Any], bool]
    said: str


_TYPES = {
    Holds.TEXT: _Type(lambda v: isinstance(v, str), "a text; quote it if it looks like a number"),
    Holds.CHOICE: _Type(lambda v: isinstance(v, str), "a word"),
    Holds.REFERENCE: _Type(lambda v: isinstance(v, str), "an id"),
    Holds.TEXTS: _Type(lambda v: isinstance(v, list) and all(isinstance(t, str) for t in v), "a list of texts"),
    Holds.FLAG: _Type(lambda v: isinstance(v, bool), "true or false"),
    Holds.NUMBER: _Type(lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0, "a whole number"),
    Holds.OBJECT: _Type(lambda v: isinstance(v, dict), "a mapping"),
    Holds.DEFINITION: _Type(lambda v: isinstance(v, dict | str), "a text or a mapping"),
}


def _given(raw: Mapping[str, Any], name: str) -> bool:
    return raw.get(name) is not None


def _near(name: Any, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _duplicates(resources: Sequence[Resource]) -> list[Problem]:
    first: dict[tuple[str, str], Resource] = {}
    problems = []
    for resource in resources:
        earlier = first.setdefault((resource.kind, resource.id), resource)
        if earlier is not resource:
            problems.append(Problem(resource.place, f"{resource.title} is described twice, first at {earlier.place}"))
    return problems


def _check_definition(audience: Resource) -> list[Problem]:
    from headrace_audience.language.sense import parse_given
    from headrace_audience.language.text.reading import from_text

    from headrace.domain.definitions import DefinitionError

    if audience.values.get("archived") and audience.values.get("active"):
        return [Problem(audience.place_of("archived"), "an audience that is archived cannot be active: leave out one")]
    definition = audience.values["definition"]
    try:
        if isinstance(definition, str):
            from_text(definition, parse_given)
        else:
            parse_given(json.dumps(definition))
    except DefinitionError as error:
        return [Problem(audience.place_of("definition"), f"definition: {error}")]
    return []


def _definition_as_json(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the definition as a mapping, as the platform stores it."""
    from headrace_audience.language.text.reading import from_text

    definition = values["definition"]
    return {**values, "definition": from_text(definition) if isinstance(definition, str) else definition}


def _check_rules(rules: Resource) -> list[Problem]:
    from headrace_identity.resolving.rules import RulesError, parse

    try:
        parse(rules.values["rules"])
    except RulesError as error:
        return [Problem(rules.place_of("rules"), f"rules: {error}")]
    return []


def _rules_in_full(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """With all defaults, as the platform stores rules, so that a file need not name them."""
    from headrace_identity.resolving.rules import parse

    return {"rules": parse(values["rules"]).as_json()}


def _check_computed(trait: Resource) -> list[Problem]:
    from headrace.domain.computed_traits.definition import parse_definition
    from headrace.domain.definitions import DefinitionError

    try:
        parse_definition(trait.values["definition"])
    except DefinitionError as error:
        return [Problem(trait.place_of("definition"), f"definition: {error}")]
    return []


def _check_source_mapping(source: Resource) -> list[Problem]:
    from headrace_ingest.mapping import InvalidMapping, parse_mapping

    mapping = source.values["mapping"]
    if not mapping:
        return []
    place = source.place_of("mapping")
    if source.values["type"] != "webhook":
        return [Problem(place, "mapping is for webhook sources only")]
    try:
        parse_mapping(json.dumps(mapping))
    except InvalidMapping as error:
        return [Problem(place, f"mapping: {error}")]
    return []


def _check_sync(sync: Resource) -> list[Problem]:
    values, type_ = sync.values, sync.values["type"]
    problems = []
    if type_ == "forwarding" and values["audience"]:
        problems.append(Problem(sync.place_of("audience"), "a forwarding sync has no audience"))
    if type_ != "forwarding" and not values["audience"]:
        problems.append(Problem(sync.place, f"a sync of type {type_} needs audience: the id of the audience"))
    if type_ != "forwarding" and values["event_names"]:
        problems.append(Problem(sync.place_of("event_names"), "event_names is for forwarding syncs only"))
    if type_ != "event" and values["send_removals"]:
        problems.append(Problem(sync.place_of("send_removals"), "send_removals is for event syncs only"))
    if type_ != "forwarding" and values["delay_seconds"]:
        problems.append(Problem(sync.place_of("delay_seconds"), "delay_seconds is for forwarding syncs only"))
    for name in ("require_approval", "most_changed_percent", "schedule"):
        if type_ != "list" and values[name]:
            problems.append(Problem(sync.place_of(name), f"{name} is for list syncs only"))
    return problems


_CHECKS: dict[str, tuple[Callable[[Resource], list[Problem]], ...]] = {
    "Source": (_check_source_mapping,),
    "IdentityRules": (_check_rules,),
    "ComputedTrait": (_check_computed,),
    "Audience": (_check_definition,),
    "Sync": (_check_sync,),
}
_IN_FULL: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "Audience": _definition_as_json,
    "IdentityRules": _rules_in_full,
}
"""For kinds whose stored form says more than a file must: what a file means, in the stored form."""
