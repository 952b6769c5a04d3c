"""Profiles and identifiers as MongoDB documents, and back.

Names of fields are short, because they stand in every document. A profile keeps little else than what the rules
need: its identifiers, its traits, what it was merged with. Everything about events is in the log.

    profiles     _id workspace + profile, w workspace, c created, ids [[namespace, value, time_us], ...],
                 tr [[name, value, time_us, message, source], ...], parts [...] and m merges once it has merged others,
                 into profile and ms sequence once it was merged, g a counter that only makes transactions conflict
    identifiers  _id workspace + namespace + value, p the part that holds it ("" while an absence is relied on), g too
"""

from __future__ import annotations

from typing import Any

from headrace.storage.mongo.client import Document
from headrace_identity.graph import Profile, TraitValue
from headrace_identity.rules import Identifier

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
        traits={
            name: TraitValue(value, time_us, message_id, source_id)
            for name, value, time_us, message_id, source_id in document.get("tr", ())
        },
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
        document["tr"] = traits_field(profile)
    if profile.merges:
        document |= merges_fields(profile)
    if profile.merged_into is not None:
        document |= merged_fields(profile)
    return document


def identifiers_field(profile: Profile) -> list[Any]:
    """The field `ids`."""
    return [[namespace, value, time_us] for (namespace, value), time_us in profile.identifiers.items()]


def traits_field(profile: Profile) -> list[Any]:
    """The field `tr`; a list, because names of traits may be what BSON allows in no name of a field."""
    return [
        [name, trait.value, trait.time_us, trait.message_id, trait.source_id] for name, trait in profile.traits.items()
    ]


def merges_fields(profile: Profile) -> Document:
    """The fields of a profile that others were merged into."""
    return {"parts": list(profile.parts), "m": profile.merges}


def merged_fields(profile: Profile) -> Document:
    """The fields of a profile that was merged into another."""
    return {"into": profile.merged_into, "ms": profile.merged_sequence}
