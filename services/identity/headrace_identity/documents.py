"""Profiles and identifiers as MongoDB documents, and back.

Names of fields are short, because they stand in every document. A profile keeps little else than what the rules
need: its identifiers, its traits, what it was merged with. Everything about events is in the log.

    profiles     _id workspace + profile, w workspace, c created, ids [[namespace, value, time_us], ...],
                 tr [[name, value, time_us, message, source], ...] and s what its traits are searched by,
                 co [[purpose, granted, time_us, message, source], ...] once somebody spoke of consent,
                 parts [...] and m merges once it has merged others, into profile and ms sequence once it was merged,
                 g a counter that only makes transactions conflict
    identifiers  _id workspace + namespace + value, p the part that holds it ("" while an absence is relied on), g too
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.domain.consent import ConsentValue
from headrace.storage.mongo.client import Document
from headrace_identity.people.search import trait_terms
from headrace_identity.resolving.graph import Profile, TraitValue
from headrace_identity.resolving.rules import Identifier

SEPARATOR = "\x1f"


def profile_key(workspace_id: str, profile_id: str) -> str:
    """Database id of a profile."""
    return f"{workspace_id}{SEPARATOR}{profile_id}"


def profile_of_key(key: str) -> str:
    """Profile id in a database id."""
    return key[key.index(SEPARATOR) + 1 :]


def identifier_key(workspace_id: str, identifier: Identifier) -> str:
    """Database id of an identifier; neither workspaces nor namespaces contain the separator."""
    return f"{workspace_id}{SEPARATOR}{identifier[0]}{SEPARATOR}{identifier[1]}"


def profile_from(document: Document) -> Profile:
    """A profile from its stored form."""
    profile_id = profile_of_key(document["_id"])
    return Profile(
        id=profile_id,
        created=document["c"],
        parts=document.get("parts") or [profile_id],
        merges=document.get("m", 0),
        identifiers={(namespace, value): time_us for namespace, value, time_us in document["ids"]},
        traits=traits_of_rows(document.get("tr", ())),
        consents={purpose: ConsentValue(*value) for purpose, *value in document.get("co", ())},
        merged_into=document.get("into"),
        merged_sequence=document.get("ms", 0),
    )


def profile_document(workspace_id: str, profile: Profile) -> Document:
    """The stored form of a new profile."""
    document: Document = {
        "_id": profile_key(workspace_id, profile.id),
        "w": workspace_id,
        "c": profile.created,
        "ids": identifiers_field(profile),
    }
    if profile.traits:
        document |= traits_fields(profile)
    if profile.consents:
        document["co"] = consents_field(profile)
    if profile.merges:
        document |= merges_fields(profile)
    if profile.merged_into is not None:
        document |= merged_fields(profile)
    return document


def identifiers_field(profile: Profile) -> list[Any]:
    """The field `ids`."""
    return [[namespace, value, time_us] for (namespace, value), time_us in profile.identifiers.items()]


def traits_fields(profile: Profile) -> Document:
    """The fields `tr`, a list, because names of traits may be what BSON allows in no name of a field, and `s`."""
    return {
        "tr": [trait_row(name, trait) for name, trait in profile.traits.items()],
        "s": trait_terms(profile.traits),
    }


def trait_row(name: str, trait: TraitValue) -> list[Any]:
    """The stored form of a trait."""
    return [name, trait.value, trait.time_us, trait.message_id, trait.source_id]


def traits_of_rows(rows: Iterable[Sequence[Any]]) -> dict[str, TraitValue]:
    """Traits from their stored form."""
    return {name: TraitValue(value, time_us, message_id, source) for name, value, time_us, message_id, source in rows}


def consents_field(profile: Profile) -> list[Any]:
    """The field `co`, a list for the same reason as the traits."""
    return [[purpose, *value] for purpose, value in profile.consents.items()]


def merges_fields(profile: Profile) -> Document:
    """The fields of a profile that others were merged into."""
    return {"parts": list(profile.parts), "m": profile.merges}


def merged_fields(profile: Profile) -> Document:
    """The fields of a profile that was merged into another."""
    return {"into": profile.merged_into, "ms": profile.merged_sequence}
