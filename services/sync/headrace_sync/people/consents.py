"""What a person must allow before anything about them is sent: the purposes that a destination requires. Pure.

Consent is judged on the profile that is read for a delivery, never on an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from headrace.api.identity.v1 import profile_pb2
from headrace.domain.consent import ConsentValue, purpose_of, statements_of
from headrace.rpc.errors import invalid_argument
from headrace_sync.outlets.verdicts import Kind, Verdict

MOST_REQUIRED = 20
FRESH_S = 10.0
"""How long what was made of a profile may be sent after the profile was read, in seconds: then it is made anew."""

REASON_PREFIX = "consent:"

T = TypeVar("T")
Consents = Mapping[str, ConsentValue]

_GRANTED = profile_pb2.ConsentStatus.CONSENT_STATUS_GRANTED
_DENIED = profile_pb2.ConsentStatus.CONSENT_STATUS_DENIED


@dataclass(frozen=True, slots=True)
class Allowed(Generic[T]):
    """An item that may be sent.

    Attributes:
        item: The item.
        consents: What the person said about the purposes that the destination requires.
    """

    item: T
    consents: Consents = field(default_factory=dict)


def refusal(required: Sequence[str], consents: Consents | None) -> Verdict | None:
    """Why nothing may be sent: the first required purpose that is not granted; None when all are.

    Args:
        required: Purposes that the destination requires.
        consents: What the person said; None for nobody.
    """
    for purpose in required:
        value = consents.get(purpose) if consents else None
        if value is None or not value.granted:
            return Verdict(Kind.SKIPPED, f"{REASON_PREFIX}{purpose}")
    return None


def evidence(required: Sequence[str], consents: Consents) -> dict[str, ConsentValue]:
    """What the person said about the required purposes."""
    return {purpose: consents[purpose] for purpose in required if purpose in consents}


def stored(consents: Consents) -> list[list[Any]]:
    """Consents in their stored form."""
    return [[purpose, *value] for purpose, value in consents.items()]


def messages(rows: Iterable[Sequence[Any]]) -> list[profile_pb2.Consent]:
    """Consents in their stored form as messages."""
    return [
        profile_pb2.Consent(
            purpose=purpose,
            status=_GRANTED if granted else _DENIED,
            timestamp_us=time_us,
            message_id=message_id,
            source_id=source_id,
        )
        for purpose, granted, time_us, message_id, source_id in rows
    ]


def consents_of(message: profile_pb2.Profile) -> dict[str, ConsentValue]:
    """What a person said, from their profile."""
    return {
        c.purpose: ConsentValue(c.status == _GRANTED, c.timestamp_us, c.message_id, c.source_id)
        for c in message.consents
    }


def checked(field_name: str, purposes: Iterable[str]) -> tuple[str, ...]:
    """Required purposes as they are stored, each once, in the order given.

    Raises:
        ApiError: INVALID_ARGUMENT.
    """
    found: dict[str, None] = {}
    for given in purposes:
        purpose = purpose_of(given)
        if purpose is None:
            raise invalid_argument(field_name, "a purpose has 1 to 64 printable characters")
        found[purpose] = None
    if len(found) > MOST_REQUIRED:
        raise invalid_argument(field_name, f"must be at most {MOST_REQUIRED} purposes")
    return tuple(found)


@dataclass(slots=True)
class Spoken:
    """Profiles whose events spoke of some purposes.

    Attributes:
        denied: An event denied one of them.
        granted: Events only granted.
    """

    denied: set[str] = field(default_factory=set)
    granted: set[str] = field(default_factory=set)


def spoken(statements: Iterable[tuple[str, Mapping[str, bool]]], purposes: Iterable[str]) -> Spoken:
    """Who spoke of these purposes.

    Args:
        statements: (profile id, what an event of it says).
        purposes: Those that matter.
    """
    wanted = frozenset(purposes)
    found = Spoken()
    for profile_id, said in statements:
        own = [granted for purpose, granted in said.items() if purpose in wanted]
        if own:
            (found.granted if all(own) else found.denied).add(profile_id)
    found.granted -= found.denied
    return found


def statements(events: Iterable[profile_pb2.ResolvedEvent]) -> list[tuple[str, Mapping[str, bool]]]:
    """(profile id, what the event says) of the events that say anything."""
    found: list[tuple[str, Mapping[str, bool]]] = []
    for resolved in events:
        if resolved.profile_id and (said := statements_of(resolved.event)):
            found.append((resolved.profile_id, said))
    return found
