"""What a plugin's answer must satisfy: nothing lost, nothing twice, nothing that is no HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from headrace.connector import wire
from headrace_sdk import Outcomes, Request
from headrace_sdk.manifest import problems_of

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
_OWN_METHOD = re.compile(r"[A-Z]{1,32}")
_LONGEST_KEY = 128


class ContractBroken(Exception):
    """The plugin's answer breaks the contract; the text says how, without any value."""


def check_info(info: wire.ConnectorInfo) -> None:
    """What a plugin says about a connector holds together, whatever language it says it in.

    Raises:
        ContractBroken: It does not.
    """
    known = info.settings_schema.get("properties")
    problems = list(problems_of(info, known if isinstance(known, Mapping) else ()))
    if not info.title:
        problems.append("title must say something")
    if info.settings_schema.get("type", "object") != "object" or not isinstance(known, Mapping | None):
        problems.append("the schema of the settings must be one of an object")
    if problems:
        raise ContractBroken(f"connector {info.name[:_LONGEST_KEY]!r}: " + "; ".join(problems))


def check_built(size: int, built: wire.BuiltBatch, schemes: Sequence[str] = ()) -> None:
    """Every item is in one request, in several that carry nothing but it, or skipped once; all requests can be sent.

    Args:
        size: Items in the batch.
        built: The plugin's answer.
        schemes: URL schemes of requests that the connector sends by itself.

    Raises:
        ContractBroken: It is not so.
    """
    times = [0] * size
    alone = {request.items[0] for request in built.requests if len(request.items) == 1}
    places = [*alone, *(place for request in built.requests if len(request.items) != 1 for place in request.items)]
    places += [skip.item for skip in built.skipped]
    for place in places:
        if not 0 <= place < size:
            raise ContractBroken(f"it speaks of item {place} in a batch of {size}")
        times[place] += 1
    for place, count in enumerate(times):
        if count != 1:
            how = "left out without a reason" if count == 0 else f"accounted for {count} times"
            raise ContractBroken(f"item {place} of {size} is {how}")
    for note in built.notes:
        if not 0 <= note.item < size:
            raise ContractBroken(f"it notes something on item {note.item} in a batch of {size}")
    for request in built.requests:
        if not request.items:
            raise ContractBroken("a request carries no item")
        _check_sendable(request, schemes)


def check_request(request: Request, items: Iterable[int] = (), schemes: Sequence[str] = ()) -> None:
    """A request can be sent and carries exactly these items.

    Raises:
        ContractBroken: It is not so.
    """
    if request.items != tuple(items):
        raise ContractBroken("a request carries other items than it has to")
    _check_sendable(request, schemes)


def is_delivered(request: Request, schemes: Sequence[str]) -> bool:
    """Whether a request is the connector's own to send, having one of these URL schemes."""
    return request.url.partition(":")[0] in schemes


def _check_sendable(request: Request, schemes: Sequence[str]) -> None:
    if not is_delivered(request, schemes):
        _check_http(request)
    elif not _OWN_METHOD.fullmatch(request.method) or not request.url.isprintable() or " " in request.url:
        raise ContractBroken("a request of a scheme of the connector's own has an unusable method or URL")


def _check_http(request: Request) -> None:
    if request.method not in _METHODS:
        raise ContractBroken("a request has an unknown method")
    try:
        parts = urlsplit(request.url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable or not request.url.isprintable() or " " in request.url:
        raise ContractBroken("a request has no absolute http or https address")
    for name, value in request.headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ContractBroken("a request has a header whose name is none")
        if not _HEADER_VALUE.fullmatch(value):
            raise ContractBroken(f"the value of header {name} holds a control character")


def check_outcomes(request: Request, outcomes: Outcomes) -> None:
    """There is one outcome for each item of the request.

    Raises:
        ContractBroken: There are too few or too many.
    """
    if len(outcomes.items) != len(request.items):
        raise ContractBroken(f"{len(outcomes.items)} outcomes for {len(request.items)} items")


def check_rows(size: int, found: Sequence[wire.MemberRows]) -> None:
    """There is one answer per member, with usable and different keys.

    Raises:
        ContractBroken: It is not so.
    """
    check_count(size, len(found), "member")
    for place, member in enumerate(found):
        keys = [row.key for row in member.rows]
        if any(not key or len(key) > _LONGEST_KEY for key in keys):
            raise ContractBroken(f"a row of member {place} has a key that is empty or longer than {_LONGEST_KEY}")
        if len(set(keys)) != len(keys):
            raise ContractBroken(f"two rows of member {place} have the same key")
        if member.rejected is not None and keys:
            raise ContractBroken(f"member {place} is left out and has rows")


def check_count(expected: int, found: int, what: str) -> None:
    """There are as many answers as questions.

    Raises:
        ContractBroken: It is not so.
    """
    if expected != found:
        raise ContractBroken(f"{found} answers for {expected} {what}s")
