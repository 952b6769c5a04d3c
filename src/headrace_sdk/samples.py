"""Seeded test data, made from a manifest: settings, members, events and people that the connector can take.

The same manifest and seed give the same data, whatever was asked for before. Values of fields follow `Field.example`
and `Field.type`; those of settings their JSON Schema. Where a validator asks for more than the schema says, give the
setting `examples=[...]`, or the model whole ones: `json_schema_extra={"examples": [{...}]}`.

    samples = Samples(AcmeDestination.manifest, seed=7)
    acme = AcmeDestination(AcmeSettings(**samples.settings()))
    list(acme.send_events(EventBatch(events=samples.events(10), now_us=NOW_US)))
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from headrace_sdk.items import EventItem, Member, Profile, Subject, iso_time
from headrace_sdk.manifest import Field, FieldType, Manifest, StandardEvent
from headrace_sdk.sample_settings import SampleError, settings_by_schema

__all__ = ["NOW_US", "Fill", "SampleError", "Samples"]

NOW_US = 1_767_225_600_000_000
"""The clock of the samples: 2026-01-01T00:00:00Z. Events happened within the hour before."""

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_FIRST_NAMES = ("Ada", "Grace", "Alan", "Zoë", "Jürgen", "María", "Łukasz", "Mei", "O'Brien", "Anne-Marie")
_LAST_NAMES = ("Lovelace", "Hopper", "Turing", "Nuñez", "Müller", "García", "Kowalski", "Lin", "van der Berg", "Smith")
_TEXTS = {
    "city": ("Berlin", "München", "San Francisco", "Łódź"),
    "state": ("Berlin", "California", "Bavaria"),
    "zip": ("10115", "94103", "80331"),
    "country": ("DE", "US"),
    "gender": ("female", "male"),
    "currency": ("EUR", "USD"),
    "ip": ("203.0.113.7", "198.51.100.23"),
    "user_agent": ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",),
}
T = TypeVar("T")


class Described(Protocol):
    """What samples are made from: a Manifest, or its likeness as the platform has it."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """Fields that a mapping can fill."""
        ...

    @property
    def any_of(self) -> tuple[tuple[str, ...], ...]:
        """Groups of fields of which an item needs one."""
        ...

    @property
    def events(self) -> tuple[StandardEvent, ...]:
        """Event names that the vendor knows."""
        ...


class Fill(StrEnum):
    """Which fields an item has."""

    ALL = "all"
    """Every field that is declared."""
    REQUIRED = "required"
    """Those without which it is skipped, and nothing else."""
    SOME = "some"
    """The required ones and any of the others, by chance."""


class Samples:
    """Test data of one connector."""

    def __init__(self, manifest: Described, seed: int = 0, *, schema: Mapping[str, Any] | None = None) -> None:
        """Describe the data; nothing is made yet.

        Args:
            manifest: What the connector is.
            seed: Another one gives other data.
            schema: JSON Schema of the settings, where the manifest is a likeness that has no model of them.
        """
        self._manifest = manifest
        self._seed = seed
        self._schema = schema

    def settings(self, fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Settings that the connector's model takes: all that are required, the others by their defaults.

        Args:
            fixed: Settings to be as they are here.

        Raises:
            SampleError: A setting needs `examples`.
        """
        model = self._manifest.settings if isinstance(self._manifest, Manifest) else None
        schema = self._schema if model is None else model.model_json_schema()
        made = {**settings_by_schema(schema or {}, self._chance("settings")), **(fixed or {})}
        if model is not None:
            try:
                model.model_validate(made)
            except ValidationError as error:
                raise SampleError(_at_fault(error)) from None
        return made

    def fields(self, place: int = 0, fill: Fill = Fill.ALL) -> dict[str, Any]:
        """Values of the connector's fields, as a mapping may fill them.

        Args:
            place: Number of the item; each has other values.
            fill: Which fields.
        """
        chance = self._chance("fields", place)
        chosen = self._chosen(fill, chance)
        values = {field.name: self._value(field, place, chance) for field in self._manifest.fields}
        return {name: value for name, value in values.items() if name in chosen}

    def members(self, count: int, fill: Fill = Fill.ALL) -> tuple[Member, ...]:
        """Members of an audience: `fields` of text or texts."""
        return tuple(
            Member(
                profile_id=f"p-{place}",
                fields={name: _texts(value) for name, value in self.fields(place, fill).items()},
            )
            for place in range(count)
        )

    def events(self, count: int, fill: Fill = Fill.ALL) -> tuple[EventItem, ...]:
        """Track events, by turns of the names that the manifest knows and of one that nobody knows, with `fields`."""
        known = [event.names[0] if event.names else event.name for event in self._manifest.events]
        names = [*known, "Sample Happened"]
        return tuple(self._event(place, names[place % len(names)], fill) for place in range(count))

    def profile(self, place: int = 0) -> Profile:
        """A person with identifiers and the usual traits."""
        chance = self._chance("profile", place)
        first, last = chance.choice(_FIRST_NAMES), chance.choice(_LAST_NAMES)
        traits = {"first_name": first, "last_name": last}
        for name in ("city", "state", "zip", "country", "gender"):
            traits[name] = chance.choice(_TEXTS[name])
        identifiers = {"user_id": [f"u-{place}"], "email": [_email(place)], "phone": [_phone(place)]}
        return Profile(id=f"p-{place}", identifiers=identifiers, traits={**traits, "date_of_birth": "1990-02-03"})

    def subjects(self, count: int) -> tuple[Subject, ...]:
        """People to be forgotten; every second one was merged from another profile."""
        return tuple(
            Subject(
                profile_id=f"p-{place}",
                identifiers=self.profile(place).identifiers,
                merged_ids=[f"p-{place}-before"] if place % 2 else [],
            )
            for place in range(count)
        )

    def _event(self, place: int, name: str, fill: Fill) -> EventItem:
        chance = self._chance("event", place)
        profile = self.profile(place)
        happened_us = NOW_US - chance.randrange(_HOUR_US)
        price = chance.randrange(100, 10_000) / 100
        product = {"product_id": f"sku-{place}", "name": "Tea", "price": price, "quantity": 1, "category": "Drinks"}
        order = {"order_id": f"o-{place}", "revenue": price, "currency": "EUR", "products": [product]}
        context = {
            "ip": chance.choice(_TEXTS["ip"]),
            "userAgent": _TEXTS["user_agent"][0],
            "page": {"url": "https://shop.example/cart", "title": "Cart"},
        }
        return EventItem(
            message_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            kind="track",
            name=name,
            timestamp_us=happened_us,
            received_at_us=happened_us + chance.randrange(1_000_000),
            source_id="shop",
            identifiers={"user_id": [f"u-{place}"]},
            properties=order,
            context=context,
            profile=profile,
            fields=self.fields(place, fill),
        )

    def _chosen(self, fill: Fill, chance: random.Random) -> set[str]:
        every = [field.name for field in self._manifest.fields]
        if fill is Fill.ALL:
            return set(every)
        chosen = {field.name for field in self._manifest.fields if field.required}
        for event in self._manifest.events:
            chosen |= set(event.requires)
        for group in self._manifest.any_of:
            if group and not chosen & set(group):
                chosen.add(chance.choice(group))
        if fill is Fill.SOME:
            chosen |= {name for name in every if chance.random() < 0.5}
        return chosen

    def _value(self, field: Field, place: int, chance: random.Random) -> Any:
        if not field.many:
            return self._one(field, place, chance)
        first, second = self._one(field, place, chance), self._one(field, place + 1_000_000, chance)
        return [first] if first == second or chance.random() < 0.5 else [first, second]

    def _one(self, field: Field, place: int, chance: random.Random) -> Any:
        match field.type:
            case FieldType.NUMBER:
                return _parsed(field.example, int | float, chance.randrange(1, 100_000) / 100)
            case FieldType.BOOLEAN:
                return chance.choice((True, False))
            case FieldType.TIME:
                return field.example or iso_time(NOW_US - chance.randrange(_DAY_US))
            case FieldType.OBJECT:
                return _parsed(field.example, dict, {"plan": chance.choice(("free", "pro"))})
            case FieldType.LIST:
                return _parsed(field.example, list, [f"{field.name}-{place}"])
            case FieldType.TEXT:
                return _text(field, place, chance)

    def _chance(self, *what: object) -> random.Random:
        """Chance of its own for each thing, so that none depends on what was asked for before."""
        return random.Random("/".join(map(str, (self._seed, *what))))  # noqa: S311 - repeatable on purpose, no secret


def _text(field: Field, place: int, chance: random.Random) -> str:
    match field.name:
        case "email":
            return _email(place)
        case "phone":
            return _phone(place)
        case "user_id":
            return f"u-{place}"
        case "first_name":
            return chance.choice(_FIRST_NAMES)
        case "last_name":
            return chance.choice(_LAST_NAMES)
        case "date_of_birth":
            return iso_time(NOW_US - chance.randrange(20 * 365, 60 * 365) * _DAY_US)[:10]
        case name:
            return field.example or chance.choice(_TEXTS.get(name, (f"{name}-{place}",)))


def _email(place: int) -> str:
    return f"Ada.Lovelace+{place}@Example.com"


def _phone(place: int) -> str:
    return f"+1 202-555-{place % 10_000:04d}"


def _parsed(example: str, kind: Any, otherwise: T) -> T | Any:
    """An example as the JSON that it stands for, if it is of this kind."""
    try:
        value = json.loads(example)
    except ValueError:
        return otherwise
    return value if isinstance(value, kind) else otherwise


def _texts(value: Any) -> str | list[str]:
    """A value as members have it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return [item if isinstance(item, str) else json.dumps(item) for item in value]
    return json.dumps(value)


def _at_fault(error: ValidationError) -> str:
    places: Sequence[str] = sorted({".".join(map(str, one["loc"])) or "the settings" for one in error.errors()})
    return f"no valid sample of {', '.join(places)}: give it examples"
