"""What the document of an audience gets when somebody changes the audience, or what its definition means changes.

An audience that was live has members that others rely on. When it gets another meaning (another definition, or computed
traits that compute something else), they never change without the new version beside: it is computed, compared, and
confirmed when it moves many (see `versions`). One that is activated with another meaning than its members have keeps
them as they are until then: it is FILLING, and what is being filled is its version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Document
from headrace_audience.definitions import unreadable
from headrace_audience.definitions.stored import computed_of, definition_of, parsed_computed
from headrace_audience.definitions.unreadable import fault_of, readable
from headrace_audience.filling.versions import pending
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.store import ACTIVE, FILLING, PAUSED


def was_live(document: Mapping[str, Any]) -> bool:
    """Whether an audience was filled since it was made or brought back: so its members mean something to others."""
    return document["state"] == ACTIVE or bool(document.get("refreshed"))


def naming(parsed: Definition, computed: Mapping[str, str]) -> Document:
    """What a definition is stored with of the computed traits that it names: which, and their definitions by id."""
    return {"traits": sorted(parsed.computed_traits), "computed": dict(computed)}


def wanted(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an audience is to be: its new version, or else itself. Both hold `def`, `traits` and `computed`."""
    version: Mapping[str, Any] | None = document.get("pending")
    return version or document


def started(old: Mapping[str, Any], parsed: Definition, cause: str) -> Document:
    """When computing starts from history."""
    now = now_us()
    return {
        "state": FILLING,
        "gen": old["gen"] + 1,
        "cause": cause,
        "at": now,
        "next": now + parsed.refresh_us if parsed.refresh_us else 0,
        "done": [],
        "open": True,
        "pending": None,
        "declined": None,
        "updated": now,
    }


def stopped(old: Mapping[str, Any], state: str) -> Document:
    """When computing ends. Of one that is paused the new definition that somebody gave it is kept.

    `paused` is the moment as of which the members are of one that was exact until then.
    """
    version = old.get("pending") if state == PAUSED and not follows(old) else None
    now = now_us()
    return {
        "state": state,
        "gen": old["gen"] + 1,
        "rev": old["rev"] + 1,
        "next": 0,
        "done": [],
        "open": False,
        **(_anew(old, version) if version else {"pending": None}),
        "declined": None,
        **({"paused": now} if old["state"] == ACTIVE else {}),
        "updated": now,
    }


def activated(old: Mapping[str, Any], named: Document) -> Document:
    """When an audience is activated; `named` is naming() of what it is to be."""
    version = {"def": wanted(old)["def"], **named}
    parsed = parse_definition(version["def"])
    start = started(old, parsed, "fill")
    if was_live(old) and definition_of(version) != readable(old):
        return start | {"next": 0} | _anew(old, version)
    if was_live(old) and parsed.kind == "static":  # it is computed once: its members are those that it has
        return start | version | {"state": ACTIVE, "open": False}
    return start | version


def defined(old: Mapping[str, Any], definition: str, parsed: Definition, named: Document) -> Document:
    """When somebody gives a definition, which may be the one that the audience has."""
    version = {"def": definition, **named}
    is_same = definition_of(version) == readable(old)
    if was_live(old):
        return version | forgotten(old) | {"declined": None} if is_same else _anew(old, version)
    if old["state"] == FILLING and not is_same:
        return version | started(old, parsed, "definition")
    return version | {"pending": None}


def forgotten(old: Mapping[str, Any]) -> Document:
    """When the new version is forgotten; one whose members waited for it goes on by its own definition."""
    if old["state"] == FILLING and old.get("pending"):
        return started(old, unreadable.parsed(old), "fill")
    return {"pending": None}


def discarded(old: Mapping[str, Any]) -> Document:
    """When somebody discards the new version; what computed traits compute now is not offered again."""
    return forgotten(old) | ({"declined": old["pending"]["computed"]} if follows(old) else {})


def follows(document: Mapping[str, Any]) -> bool:
    """Whether there is a new version that only follows computed traits: nobody gave the audience a definition."""
    version: Mapping[str, Any] = document.get("pending") or {}
    return bool(version.get("def") == document["def"])


def followed(document: Mapping[str, Any], known: Mapping[str, str]) -> Document | None:
    """When computed traits compute something else, or are gone; None when nothing is to be done.

    Args:
        document: An audience that is computed.
        known: The computed traits that there are, as JSON by id.

    Raises:
        DefinitionError: A stored definition cannot be read.
    """
    target = wanted(document)
    now = {trait_id: known[trait_id] for trait_id in target.get("traits", ()) if trait_id in known}
    version = {"def": target["def"], "traits": list(target.get("traits", ())), "computed": now}
    if document.get("pending"):
        if follows(document) and _same(now, document["computed"]):
            return forgotten(document)
        return None if _same(now, target["computed"]) else _anew(document, version)
    parsed = parse_definition(document["def"])
    declined = document.get("declined")
    if parsed.kind == "static" or _same(now, document["computed"]) or (declined is not None and _same(now, declined)):
        return None
    return _anew(document, version) if was_live(document) else started(document, parsed, "definition") | version


def warnings(document: Mapping[str, Any]) -> list[str]:
    """What a stored audience names and is not as it was, and what of it cannot be read, in sentences."""
    if fault := fault_of(document):
        kept = "its members stay as they are until it is given another one, or a newer version runs"
        return [f"The stored definition cannot be read by this version of the service ({fault}): {kept}."]
    gone = sorted(set(document.get("traits", ())) - document.get("computed", {}).keys())
    said = [f"There is no computed trait {trait_id!r} any more: nobody has a value of it." for trait_id in gone]
    if version := document.get("pending"):
        if fault := fault_of(version):
            said.append(f"The new version of the definition cannot be read by this version of the service ({fault}).")
        lost = sorted(set(version["traits"]) - version["computed"].keys() - set(gone))
        said += [f"There is no computed trait {t!r} any more: by the new version nobody has a value." for t in lost]
    if (declined := document.get("declined")) is not None:
        held = computed_of(document)
        now = parsed_computed(declined)
        others = sorted(t for t in document["traits"] if held.get(t) != now.get(t))
        said += [
            f"The computed trait {trait_id!r} is another one now, and the version with it was discarded: this audience "
            "goes by what it was. Give the definition again to compare anew."
            for trait_id in others
        ]
    return said


def _anew(old: Mapping[str, Any], version: Mapping[str, Any]) -> Document:
    """What a document gets when a new version begins, which may be one that it has and whose difference nobody saw."""
    unseen = (
        {"unseen": True} if (old.get("pending") or {}).get("unseen") and version["def"] == wanted(old)["def"] else {}
    )
    named = {"traits": version["traits"], "computed": version["computed"]}
    return pending(version["def"], old["rev"] + 1, {**named, **unseen})


def _same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether definitions of computed traits say the same: what only is written otherwise computes the same."""
    return parsed_computed(one) == parsed_computed(other)
