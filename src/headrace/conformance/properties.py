"""Checks of what holds for all items, tried with many that are made by chance, the same ones every time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

from headrace.conformance.bench import ADD, DELETE, SEND, Batch, Bench
from headrace.conformance.checks import CheckFailed, check, require
from headrace.plugins.errors import PluginError
from headrace_sdk import EventItem, FieldType, Member, Subject
from headrace_sdk.samples import NOW_US, Fill

_PERSONAL = frozenset(
    {"email", "phone", "first_name", "last_name", "name", "date_of_birth", "street", "address", "username"}
)
"""Fields whose values tell who somebody is."""

_MOST = 8
_STRIDE = 7
"""Shares no factor with the number of sizes and fills, so that a few examples have several of each."""
_FULL = 500


def for_all(bench: Bench, holds: Callable[[int, int, Fill], None], *, most: int = _MOST) -> str:
    """Try a property with many batches: each size with each fill in turn, and other data every time.

    Args:
        bench: The bench.
        holds: Takes seed, size and fill; raises CheckFailed when the property does not hold.
        most: Largest size.
    """
    kinds = list(itertools.product(Fill, range(1, most + 1)))
    for number in range(bench.options.examples):
        fill, size = kinds[number * _STRIDE % len(kinds)]
        holds(bench.options.seed + number, size, fill)
    return f"{bench.options.examples} batches"


@check("properties.accounted", "Each item is in one request or skipped with a reason, whatever its values.",
       "Yield one Request or one Skip for each item; raise RecordRejected alone for a value.")  # fmt: skip
def _accounted(bench: Bench) -> str:
    def holds(seed: int, size: int, fill: Fill) -> None:
        for call in bench.calls():
            bench.build(_odd_batch(bench, call, seed, size, fill))

    return for_all(bench, holds)


@check("properties.urls", "No value of a person stands in the address of a request.",
       "Put it into the body, or send a digest: addresses are written into logs everywhere.")  # fmt: skip
def _urls(bench: Bench) -> str:
    def holds(seed: int, size: int, fill: Fill) -> None:
        for call in bench.calls():
            batch = bench.batch(call, size, fill=fill, seed=seed)
            values = {value.lower() for value in personal_values(bench, seed, size)}
            for request in bench.build(batch).requests:
                address = urlsplit(request.url)._replace(netloc="").geturl().lower()
                shown = {address, unquote(address), unquote_plus(address)}
                found = any(value in text for value in values for text in shown)
                require(not found, f"{call}: a personal value is in the address")

    return for_all(bench, holds)


def _fields_needed(bench: Bench) -> str:
    return "" if any(field.type is FieldType.TEXT for field in bench.info.fields) else "fields of text"


@check("properties.normalised", "A value in the vendor's form stays as it is when it is normalised once more.",
       "Let normalise() give a form that it takes itself.", _fields_needed)  # fmt: skip
def _normalised(bench: Bench) -> str:
    fields = [field.name for field in bench.info.fields if field.type is FieldType.TEXT]

    def holds(seed: int, size: int, fill: Fill) -> None:
        made = bench.samples(seed).fields(size)
        pairs = [(name, value) for name in fields if isinstance(value := made[name], str)]
        pairs += [(name, _odd_text(seed)) for name in fields]
        try:
            once = bench.run(bench.instance.normalise(pairs))
            taken = [(name, one.normalised) for (name, _), one in zip(pairs, once, strict=True) if one.normalised]
            twice = bench.run(bench.instance.normalise(taken))
        except PluginError as error:
            raise CheckFailed(error.reason) from None
        for (name, value), again in zip(taken, twice, strict=True):
            require(again.normalised == value, f"{name}: another value the second time")

    return for_all(bench, holds)


@check("properties.batches", "Batches are within what the manifest declares: each item fits, a full batch is built.",
       "Correct batch.max_items and batch.max_bytes, or skip with a reason what is too large.")  # fmt: skip
def _batches(bench: Bench) -> str:
    policy = bench.info.batch
    most = 0
    for call in bench.calls():
        for size in (1, min(policy.max_items, _FULL)):
            batch = bench.batch(call, size)
            for request in bench.build(batch).requests:
                require(len(request.items) <= policy.max_items, f"{call}: a request has too many items")
                fits = len(request.body) <= policy.max_bytes or len(request.items) > 1  # the host halves it
                require(fits, f"{call}: a request with one item has {len(request.body)} bytes")
                most = max(most, len(request.items))
    return f"at most {most} items in a request"


@check("properties.repeatable", "The same batch and settings give the same requests, in a new instance too.",
       "No clock, no chance, no memory, no set whose order is not sorted.")  # fmt: skip
def _repeatable(bench: Bench) -> str:
    other = bench.new_instance(bench.settings)

    def holds(seed: int, size: int, fill: Fill) -> None:
        for call in bench.calls():
            batch = bench.batch(call, size, fill=fill, seed=seed)
            first = bench.build(batch)
            require(bench.build(batch) == first, f"{call}: other requests the second time")
            require(bench.build(batch, other) == first, f"{call}: other requests in another instance")

    try:
        return for_all(bench, holds)
    finally:
        bench.run(other.close())


def _list_needed(bench: Bench) -> str:
    return "" if ADD in bench.calls() else "list_sync"


@check("properties.keys", "The keys of rows hold no personal value, and the same member has the same rows.",
       "Make rows by Row.of(data), whose key is a digest.", _list_needed)  # fmt: skip
def _keys(bench: Bench) -> str:
    def holds(seed: int, size: int, fill: Fill) -> None:
        members = bench.samples(seed).members(size, fill)
        rows = bench.rows(members)
        require(bench.rows(members) == rows, "other rows for the same members")
        for value in personal_values(bench, seed, size):
            require(
                not any(value.lower() in row.key.lower() for row in rows), "a personal value is in the key of a row"
            )

    return for_all(bench, holds)


def personal_values(bench: Bench, seed: int, size: int) -> set[str]:
    """Values of the samples that tell who somebody is."""
    samples = bench.samples(seed)
    found: set[str] = set()
    for place in range(size):
        fields = samples.fields(place)
        profile = samples.profile(place)
        found |= {str(profile.identifiers[name][0]) for name in ("email", "phone")}
        for name in _PERSONAL & fields.keys():
            value = fields[name]
            found |= {value} if isinstance(value, str) else {one for one in value if isinstance(one, str)}
    return {value for value in found if len(value) > 5}


def _odd_batch(bench: Bench, call: str, seed: int, size: int, fill: Fill) -> Batch:
    """Items whose values are odd: empty, long, in other scripts, of other types where JSON allows them."""
    size = min(size, bench.info.batch.max_items)
    samples = bench.samples(seed)
    if call == DELETE:
        subjects = [Subject(profile_id=f"p-{at}", identifiers=_odd_identifiers(seed + at)) for at in range(size)]
        return Batch(call, tuple(subjects))
    if call == SEND:
        events = samples.events(size, fill)
        return Batch(call, tuple(_odd_event(bench, event, seed + at) for at, event in enumerate(events)))
    members = [
        Member(profile_id=one.profile_id, fields=_odd_fields(bench, one.fields, seed + at, texts=True))
        for at, one in enumerate(samples.members(size, fill))
    ]
    return Batch(call, bench.rows(members)[:size])


def _odd_event(bench: Bench, event: EventItem, seed: int) -> EventItem:
    kinds = ("track", "identify", "page", "screen", "group", "alias")
    kind = kinds[seed % len(kinds)]
    return EventItem(
        message_id=event.message_id,
        kind=kind,
        name=event.name if kind == "track" else "",
        timestamp_us=(event.timestamp_us, 0, NOW_US + 10**12)[seed % 3],
        received_at_us=event.received_at_us,
        identifiers=_odd_identifiers(seed),
        properties=event.properties if seed % 2 else {"products": "none", "revenue": "much"},
        traits={"email": None} if seed % 3 else {},
        context=event.context if seed % 2 else {"page": 1, "ip": [], "campaign": None},
        profile=event.profile if seed % 2 else None,
        fields=_odd_fields(bench, event.fields, seed),
    )


def _odd_fields(bench: Bench, fields: Mapping[str, Any], seed: int, *, texts: bool = False) -> dict[str, Any]:
    """Fields, one of which is odd."""
    names = [field.name for field in bench.info.fields]
    if not names:
        return dict(fields)
    odd: Any = _odd_text(seed)
    if not texts and seed % 3 == 0:
        odd = (0, -1.5, True, [], {}, [{}], {"a": [1]}, 10**18)[seed // 3 % 8]
    return {**fields, names[seed % len(names)]: odd}


def _odd_identifiers(seed: int) -> dict[str, list[str]]:
    return {"user_id": [_odd_text(seed)]} if seed % 4 else {}


def _odd_text(seed: int) -> str:
    texts = (
        "",
        " ",
        "x" * 5_000,
        "Ünïcødé",
        "名前",
        '"\\\n\t',
        "a@b",
        "+",
        "%2F/../?",
        "\u202e\u0000",
        "😀",
        json.dumps({"a": 1}),
    )
    return texts[seed % len(texts)]
