"""Identity rules of a workspace: which values identify, in which order, and how many a person may have.

Parsing is strict: an unknown key is named, with the place where it stands, because a misspelt limit
that passes silently joins strangers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import re2

from headrace.domain.definitions import DefinitionError, load_json
from headrace.domain.event_names import fold
from headrace.domain.identifiers import (
    ANONYMOUS_ID,
    CLICK_ID_NAMESPACES,
    EMAIL,
    PHONE,
    USER_ID,
    is_country,
    normalise,
)
from headrace.domain.times import DAY_US

Identifier = tuple[str, str]
"""(namespace, value)."""

PERIODS_US = {"week": 7 * DAY_US, "month": 30 * DAY_US, "year": 365 * DAY_US}
"""Length of the sliding periods of limits, in microseconds."""

BLOCKED_VALUES = frozenset(
    {
        "-1",
        "0",
        "[object object]",
        "anonymous",
        "false",
        "guest",
        "nan",
        "none",
        "null",
        "true",
        "undefined",
        "unknown",
    }
)
"""Values that broken clients send for nobody; compared without regard to case."""

DEFAULT_LIMIT = 5
_MAX_TEXT_BYTES = 4 * 1024 * 1024
_DEFAULT_LIMITS = {USER_ID: 1}
_DEFAULT_ORDER = {USER_ID: 0, EMAIL: 1, PHONE: 2}
_NO_SHORT_VALUES = frozenset({EMAIL, PHONE, "fbp", "ga_client_id"})
_MIN_DIFFERENT_CHARACTERS = 3
_CACHED_CHECKS = 100_000
_CACHED_NAMESPACES = 1_000
_MOST_BLOCKED = 1_000
_MOST_STEPS = 3_000
_MOST_STEPS_TOGETHER = 20_000
"""Sizes of compiled patterns: RE2 takes time in proportion to them, and to the length of the value."""
_TOO_MUCH = "its patterns are too large together: repeat less, or block fewer values"

POLICIES = ("conversion", "link", "isolation")
"""What a policy for shared devices may be."""

DEFAULT_DEVICES = frozenset({ANONYMOUS_ID, "fbp", "ga_client_id"})
"""Namespaces that name a device, unless a policy says otherwise."""

DEFAULT_LOGOUT_EVENTS = ("Signed Out", "Logged out")
"""Names of the events that say that somebody logged out, unless a policy says otherwise."""

_RULES_KEYS = (
    "namespaces",
    "default_limit",
    "blocked",
    "protected",
    "max_merges",
    "max_identifiers",
    "default_country",
    "policies",
    "alarm_identifiers",
    "alarm_people",
)
_NAMESPACE_KEYS = ("name", "limit", "per", "allow_short")
_BLOCKED_KEYS = ("namespace", "equals", "matches")
_POLICY_KEYS = ("source", "policy", "devices", "logout_events")


class RulesError(ValueError):
    """Identity rules that cannot be used; `field` is the place, such as "namespaces[1].limit"."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}" if field else description)
        self.field = field
        self.description = description


class Checked(NamedTuple):
    """An identifier after the rules: `rule` is empty when it identifies, else what blocked it."""

    value: str
    rule: str
    rank: tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Namespace:
    """How identifiers of one namespace count.

    Attributes:
        name: The namespace.
        limit: How many different values one profile may hold.
        per: None for ever, else "week", "month" or "year": in any such period.
        allow_short: Whether values with fewer than 3 different characters identify.
    """

    name: str
    limit: int
    per: str | None = None
    allow_short: bool = True


@dataclass(frozen=True, slots=True)
class Blocked:
    """Values that the workspace does not want to identify anybody: equal to a text, or matching an RE2 pattern."""

    equals: str | None = None
    matches: str | None = None
    namespace: str | None = None


class _Blocks(NamedTuple):
    """Values that are blocked: equal to one of these, or matching a pattern."""

    equal: frozenset[str]
    pattern: Any

    def match(self, value: str) -> bool:
        """Whether a value is one of them."""
        return value in self.equal or (self.pattern is not None and self.pattern.search(value) is not None)


@dataclass(frozen=True, slots=True)
class Policy:
    """What logins and logouts on a shared device mean; see the module `policies`.

    Attributes:
        policy: "conversion", "link" or "isolation".
        source: Id of the source whose events it is for; None for all that have no policy of their own.
        devices: Namespaces that name a device. An event with an identifier of another namespace is a login.
        logout_events: Names of the track events that are logouts, compared as `fold` writes them.
    """

    policy: str
    source: str | None = None
    devices: frozenset[str] = DEFAULT_DEVICES
    logout_events: tuple[str, ...] = DEFAULT_LOGOUT_EVENTS


@dataclass(frozen=True)
class Rules:
    """Identity rules of one workspace; the fields are those of the JSON form, see docs/reference/identity-rules.md."""

    namespaces: tuple[Namespace, ...] = ()
    default_limit: int = DEFAULT_LIMIT
    blocked: tuple[Blocked, ...] = ()
    protected: frozenset[str] = frozenset({USER_ID})
    max_merges: int = 100
    max_identifiers: int = 1000
    default_country: str | None = None
    policies: tuple[Policy, ...] = ()
    alarm_identifiers: int = 50
    alarm_people: int = 20
    handed_over: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())
    """Namespaces whose identifiers a logout may take from one profile and give to another."""
    _by_name: dict[str, Namespace] = field(init=False, repr=False, compare=False, default_factory=dict)
    _ranks: dict[str, tuple[int, int, str]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _unnamed: dict[str, Namespace] = field(init=False, repr=False, compare=False, default_factory=dict)
    _checks: dict[Identifier, Checked] = field(init=False, repr=False, compare=False, default_factory=dict)
    _own_blocks: dict[str | None, _Blocks] = field(init=False, repr=False, compare=False, default_factory=dict)
    _policies: dict[str | None, Policy] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_name.update({n.name: n for n in self.namespaces})
        self._ranks.update({n.name: (0, i, n.name) for i, n in enumerate(self.namespaces)})
        for namespace in {b.namespace for b in self.blocked}:
            self._own_blocks[namespace] = self._blocks([b for b in self.blocked if b.namespace == namespace])
        self._policies.update({p.source: p for p in self.policies})
        handed_over = frozenset[str]().union(*(p.devices for p in self.policies if p.logout_events))
        object.__setattr__(self, "handed_over", handed_over)

    def policy(self, source_id: str) -> Policy | None:
        """The policy for events of a source: its own, else that for all, else none."""
        if not self._policies:
            return None
        return self._policies.get(source_id) or self._policies.get(None)

    def rank(self, namespace: str) -> tuple[int, int, str]:
        """Sort key of a namespace, the highest priority first.

        Namespaces of the rules come in their order; then those that the rules do not name: user_id, email,
        phone, the others alphabetically.
        """
        known = self._ranks.get(namespace)
        return known or (1, _DEFAULT_ORDER.get(namespace, len(_DEFAULT_ORDER)), namespace)

    def namespace(self, name: str) -> Namespace:
        """The rule of a namespace; the default one when the rules do not name it."""
        known = self._by_name.get(name) or self._unnamed.get(name)
        if known is None:
            limit = _DEFAULT_LIMITS.get(name, self.default_limit)
            known = Namespace(name, limit, allow_short=name not in _NO_SHORT_VALUES)
            if len(self._unnamed) < _CACHED_NAMESPACES:
                self._unnamed[name] = known
        return known

    def check(self, namespace: str, value: str) -> Checked:
        """Normalise an identifier and say whether it identifies.

        Returns:
            The value, normalised as far as it could be, the rule that blocked it ("" for none, else
            "blocked:value", "blocked:pattern", "blocked:short", "blocked:invalid", "blocked:click_id" or
            "blocked:workspace"), and the rank of its namespace.
        """
        key = (namespace, value)
        known = self._checks.get(key)
        if known is None:
            if len(self._checks) >= _CACHED_CHECKS:
                self._checks.clear()
            known = self._checks[key] = Checked(*self._check(namespace, value), self.rank(namespace))
        return known

    def _check(self, namespace: str, value: str) -> tuple[str, str]:
        trimmed = value.strip()
        if not trimmed or trimmed.lower() in BLOCKED_VALUES:
            return trimmed, "blocked:value"
        if not trimmed.strip("0-"):
            return trimmed, "blocked:pattern"  # ^[0-]*$
        normal = normalise(namespace, trimmed, self.default_country)
        if normal is None:
            return trimmed, "blocked:invalid"
        if namespace in CLICK_ID_NAMESPACES:
            return normal, "blocked:click_id"
        if not self.namespace(namespace).allow_short and len(set(normal)) < _MIN_DIFFERENT_CHARACTERS:
            return normal, "blocked:short"
        for only in (None, namespace) if self._own_blocks else ():
            blocks = self._own_blocks.get(only)
            if blocks is not None and (blocks.match(trimmed) or blocks.match(normal)):
                return normal, "blocked:workspace"
        return normal, ""

    def _blocks(self, blocked: Sequence[Blocked]) -> _Blocks:
        """What the workspace blocks in one namespace, or in all."""
        equal: set[str] = set()
        for block in blocked:
            if block.equals is not None:
                text = block.equals.strip()
                # The list is written by people: "NoReply@Shop.example" is meant as the address that it is.
                equal |= {text, text.lower() if "@" in text else text}
                if block.namespace is not None:
                    equal.add(normalise(block.namespace, text, self.default_country) or text)
        # A value is matched with a thousand alternatives in about the time of one.
        alternatives = "|".join(f"(?:{_closed(block.matches)})" for block in blocked if block.matches is not None)
        if not alternatives:
            return _Blocks(frozenset(equal), None)
        try:
            pattern = re2.compile(alternatives, _pattern_options())
        except re2.error as error:
            raise RulesError("blocked", _TOO_MUCH) from error
        if pattern.programsize > _MOST_STEPS_TOGETHER:
            raise RulesError("blocked", _TOO_MUCH)
        return _Blocks(frozenset(equal), pattern)

    def as_json(self) -> dict[str, Any]:
        """The JSON form that `parse` reads."""
        form: dict[str, Any] = {
            "namespaces": [
                {"name": n.name, "limit": n.limit, "allow_short": n.allow_short} | ({"per": n.per} if n.per else {})
                for n in self.namespaces
            ],
            "default_limit": self.default_limit,
            "blocked": [
                {k: v for k in _BLOCKED_KEYS if (v := getattr(blocked, k)) is not None} for blocked in self.blocked
            ],
            "protected": sorted(self.protected),
            "max_merges": self.max_merges,
            "max_identifiers": self.max_identifiers,
            "policies": [
                ({"source": p.source} if p.source is not None else {})
                | {"policy": p.policy, "devices": sorted(p.devices), "logout_events": list(p.logout_events)}
                for p in self.policies
            ],
            "alarm_identifiers": self.alarm_identifiers,
            "alarm_people": self.alarm_people,
        }
        if self.default_country is not None:
            form["default_country"] = self.default_country
        return form


def parse(data: object) -> Rules:
    """Read identity rules from their JSON form.

    Args:
        data: A decoded JSON object; every key is optional.

    Raises:
        RulesError: A key is unknown or a value is wrong; the message names it.
    """
    form = _object("", data, _RULES_KEYS)
    default_limit = _integer("default_limit", form.get("default_limit", DEFAULT_LIMIT), 1, 1000)
    country = form.get("default_country")
    if country is not None and not (isinstance(country, str) and is_country(country)):
        raise RulesError("default_country", f"{country!r} is no country: write two capital letters such as IN")
    blocked = _list("blocked", form.get("blocked", []))
    if len(blocked) > _MOST_BLOCKED:
        raise RulesError("blocked", f"must be at most {_MOST_BLOCKED:,}; one pattern can stand for many values")
    protected = _list("protected", form.get("protected", [USER_ID]))
    return Rules(
        namespaces=_namespaces(form.get("namespaces"), default_limit),
        default_limit=default_limit,
        blocked=tuple(_blocked(f"blocked[{i}]", b) for i, b in enumerate(blocked)),
        protected=frozenset(_name(f"protected[{i}]", name) for i, name in enumerate(protected)),
        max_merges=_integer("max_merges", form.get("max_merges", 100), 0, 1000),
        max_identifiers=_integer("max_identifiers", form.get("max_identifiers", 1000), 1, 10_000),
        default_country=country,
        policies=_policies(form.get("policies", [])),
        alarm_identifiers=_integer("alarm_identifiers", form.get("alarm_identifiers", 50), 1, 10_000),
        alarm_people=_integer("alarm_people", form.get("alarm_people", 20), 1, 100_000),
    )


def parse_text(text: str | bytes) -> Rules:
    """Read identity rules from JSON text.

    Raises:
        RulesError: It is no JSON, a key is unknown or a value is wrong.
    """
    try:
        data = load_json(text, _MAX_TEXT_BYTES)
    except DefinitionError as error:
        raise RulesError("", f"the rules: {error.reason}") from error
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RulesError("", "a text holds half of a surrogate pair, which is no character") from error
    return parse(data)


def _namespaces(data: object, default_limit: int) -> tuple[Namespace, ...]:
    if data is None:
        return ()
    found: dict[str, Namespace] = {}
    for i, item in enumerate(_list("namespaces", data)):
        place = f"namespaces[{i}]"
        form = _object(place, item, _NAMESPACE_KEYS)
        if "name" not in form:
            raise RulesError(place, "name is missing")
        name = _name(f"{place}.name", form["name"])
        if name in found:
            raise RulesError(f"{place}.name", f"{name!r} stands twice")
        per = form.get("per")
        if per is not None and per not in PERIODS_US:
            raise RulesError(f"{place}.per", f"{per!r} is no period: write week, month or year")
        allow_short = form.get("allow_short", name not in _NO_SHORT_VALUES)
        if not isinstance(allow_short, bool):
            raise RulesError(f"{place}.allow_short", "must be true or false")
        limit = form.get("limit", _DEFAULT_LIMITS.get(name, default_limit))
        found[name] = Namespace(name, _integer(f"{place}.limit", limit, 1, 1000), per, allow_short)
    return tuple(found.values())


def _blocked(place: str, data: object) -> Blocked:
    form = _object(place, data, _BLOCKED_KEYS)
    if ("equals" in form) == ("matches" in form):
        raise RulesError(place, "must have either equals or matches")
    for key, value in form.items():
        if not isinstance(value, str) or not value.strip():
            raise RulesError(f"{place}.{key}", "must be a text")
    if "matches" in form:
        try:
            pattern = re2.compile(form["matches"], _pattern_options())
        except re2.error as error:
            raise RulesError(f"{place}.matches", f"is no RE2 pattern: {_text(error)}") from error
        if pattern.programsize > _MOST_STEPS:
            raise RulesError(f"{place}.matches", "is too large a pattern: repeat less, or write several patterns")
    return Blocked(**form)


def _policies(data: object) -> tuple[Policy, ...]:
    found: dict[str | None, Policy] = {}
    for i, item in enumerate(_list("policies", data)):
        place = f"policies[{i}]"
        form = _object(place, item, _POLICY_KEYS)
        if form.get("policy") not in POLICIES:
            raise RulesError(f"{place}.policy", f"must be one of {', '.join(POLICIES)}")
        source = form.get("source")
        if source is not None and not (isinstance(source, str) and source):
            raise RulesError(f"{place}.source", "must be the id of a source; leave it out for all sources")
        if source in found:
            whose = "all sources have" if source is None else f"source {source!r} has"
            raise RulesError(place, f"{whose} a policy already")
        devices = _list(f"{place}.devices", form.get("devices", sorted(DEFAULT_DEVICES)))
        if not devices:
            raise RulesError(f"{place}.devices", "must name at least one namespace")
        if USER_ID in devices:
            raise RulesError(f"{place}.devices", f"{USER_ID} names a person, not a device")
        events = _list(f"{place}.logout_events", form.get("logout_events", list(DEFAULT_LOGOUT_EVENTS)))
        for j, name in enumerate(events):
            if not isinstance(name, str) or not fold(name):
                raise RulesError(f"{place}.logout_events[{j}]", "must be the name of an event")
        found[source] = Policy(
            form["policy"],
            source,
            frozenset(_name(f"{place}.devices[{j}]", name) for j, name in enumerate(devices)),
            tuple(events),
        )
    return tuple(found.values())


def _closed(pattern: str) -> str:
    """A valid pattern as it can stand beside others: with an end to the quotation that may still be open."""
    try:
        re2.compile(pattern + r"\E", _pattern_options())
    except re2.error:
        return pattern  # none is open, and to end none is an error
    return pattern + r"\E"


def _pattern_options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False  # a wrong pattern is the caller's error, not the library's
    options.never_capture = True  # what groups match is not asked for, and costs up to a hundred times more
    return options


def _text(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


def _object(place: str, data: object, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise RulesError(place, "must be a JSON object")
    for key in data:
        if key not in keys:
            raise RulesError(f"{place}.{key}" if place else str(key), f"unknown key; known are {', '.join(keys)}")
    return dict(data)


def _list(place: str, data: object) -> list[Any]:
    if not isinstance(data, list):
        raise RulesError(place, "must be a list")
    return data


def _integer(place: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RulesError(place, f"must be a whole number from {low} to {high}")
    return value


def _name(place: str, value: object) -> str:
    if not isinstance(value, str) or normalise(ANONYMOUS_ID, value, None) != value or len(value) > 100:
        raise RulesError(place, "must be a namespace of 1 to 100 characters")
    return value


DEFAULT_RULES = Rules()
"""The rules of a workspace that has set none."""
