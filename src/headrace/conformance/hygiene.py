"""Checks that a connector gives nothing away and touches nothing outside: looked at from within its own process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from headrace.conformance.bench import ADD, Batch, Bench
from headrace.conformance.checks import CheckFailed, check, require
from headrace.conformance.properties import personal_values
from headrace.conformance.watching import Seen, watched
from headrace.plugins.discovery import discover
from headrace.plugins.masking import secrets_of
from headrace_sdk import (
    ConnectorError,
    DeleteBatch,
    Destination,
    EventBatch,
    FieldType,
    Manifest,
    MemberBatch,
    Note,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    Skip,
    Warned,
)
from headrace_sdk.samples import NOW_US

_STATUSES = (200, 202, 207, 301, 400, 401, 403, 404, 409, 413, 422, 429, 500, 503)
_SHORTEST = 6


@dataclass(frozen=True, slots=True)
class Naked:
    """A connector's object without a host around it.

    Attributes:
        destination: The configured connector.
        model: Class of its settings.
        home: Path that the files of its code begin with.
    """

    destination: Destination[Any]
    model: type[BaseModel]
    home: str


def naked(bench: Bench) -> Naked:
    """The connector's object, made once.

    Raises:
        CheckFailed: Its class cannot be found.
    """
    found = bench.memory.get("naked")
    if not isinstance(found, Naked):
        found = bench.memory["naked"] = _naked(bench)
    return found


def _naked(bench: Bench) -> Naked:
    bench.instance  # noqa: B018 - loads it, and says why when it cannot be
    plugins, _ = discover([bench.info.plugin], path=bench.options.path, folders=bench.options.folders)
    for plugin in plugins:
        for _, value in plugin.entry_points:
            module = importlib.import_module(value.partition(":")[0])
            for manifest in module.headrace_connectors():
                if isinstance(manifest, Manifest) and manifest.name == bench.info.name:
                    where, _, name = manifest.factory.partition(":")
                    factory = getattr(importlib.import_module(where), name)
                    made = factory(manifest.settings.model_validate(bench.settings))
                    return Naked(made, manifest.settings, _home(value))
    raise CheckFailed("its class cannot be found")


def _home(entry_point: str) -> str:
    top = sys.modules[entry_point.partition(":")[0].partition(".")[0]].__file__ or ""
    return top.removesuffix("__init__.py")


def _python_needed(bench: Bench) -> str:
    return "" if bench.in_python else "a plugin in Python"


def said(bench: Bench, connector: Destination[Any], batches: Iterable[Batch]) -> Iterator[str]:
    """Let a connector do all that it does, and give every text that it says."""
    for batch in batches:
        yield from _said_of(connector, batch)
    names = [field.name for field in bench.info.fields if field.type is FieldType.TEXT]
    fields = bench.samples(bench.options.seed).fields()
    for name in names:
        value = fields[name] if isinstance(fields[name], str) else str(fields[name])
        try:
            connector.normalise(name, value)
        except RecordRejected as error:
            yield error.reason


def _batches(bench: Bench) -> list[Batch]:
    return [bench.batch(call, size) for call in bench.calls() for size in (1, 2)]


def _said_of(connector: Destination[Any], batch: Batch) -> Iterator[str]:
    requests: list[Request] = []
    for built in _built(connector, batch):
        if isinstance(built, Request):
            requests.append(built)
        elif isinstance(built, Skip | Note):
            yield built.reason
    for request in requests:
        for status in _STATUSES:
            for body in (b"", b"{}", b"<html>", request.body or b"[]"):
                yield from _read(connector, request, Response(status=status, body=body, received_at_us=NOW_US))


def _built(connector: Destination[Any], batch: Batch) -> Iterable[object]:
    match batch.call:
        case "add_members":
            return connector.add_members(MemberBatch(rows=batch.items, now_us=NOW_US))
        case "remove_members":
            return connector.remove_members(MemberBatch(rows=batch.items, now_us=NOW_US))
        case "send_events":
            return connector.send_events(EventBatch(events=batch.items, now_us=NOW_US))
        case _:
            return connector.delete(DeleteBatch(subjects=batch.items, now_us=NOW_US))


def _read(connector: Destination[Any], request: Request, response: Response) -> Iterator[str]:
    try:
        outcomes = connector.read(request, response)
    except ConnectorError as error:
        yield f"{error} {error.reason}"
        return
    yield from (outcomes.unauthorized, outcomes.misconfigured)
    yield from (item.reason for item in outcomes.items if isinstance(item, Warned | Rejected | Retry))


@check("hygiene.secrets", "No secret stands in a reason, an error, an output, or the repr of connector and settings.",
       "Make it a SecretStr; set hide_input_in_errors=True in the settings model; name settings, not values.",
       _python_needed)  # fmt: skip
def _secrets(bench: Bench) -> str:
    found = naked(bench)
    secrets = [one for one in secrets_of(bench.info.settings_schema, bench.settings) if len(one) >= _SHORTEST]
    texts, seen = _watch(bench)
    settings = found.destination.settings
    shown = {
        "a reason": "\n".join(texts),
        "an output": seen.output,
        "repr(settings)": f"{settings!r} {settings}",
        "repr(connector)": f"{found.destination!r} {found.destination}",
        "the error of wrong settings": _error_of(found.model, bench.settings),
    }
    for where, text in shown.items():
        require(not any(secret in text for secret in secrets), f"a secret stands in {where}")
    return f"{len(secrets)} secrets, {len(texts)} texts"


def _error_of(model: type[BaseModel], settings: dict[str, Any]) -> str:
    """What is said about settings in which every value has the wrong type."""
    try:
        model.model_validate({name: {"wrong": [value]} for name, value in settings.items()})
    except ValidationError as error:
        return str(error)
    return ""


@check("hygiene.personal-data", "No personal datum stands in a reason or an output.",
       "Name the field, not its value; never pass on a vendor's text that may quote it.", _python_needed)  # fmt: skip
def _personal_data(bench: Bench) -> str:
    values = personal_values(bench, bench.options.seed, 2)
    texts, seen = _watch(bench)
    for where, text in (("a reason", "\n".join(texts)), ("an output", seen.output)):
        require(not any(value in text for value in values), f"a personal value stands in {where}")
    return f"{len(texts)} texts"


def _watch(bench: Bench) -> tuple[Sequence[str], Seen]:
    """Watch a connector do all that it does, once what is imported on the way is there: what it said, and touched."""
    if "watched" not in bench.memory:
        found = naked(bench)
        members = bench.samples(bench.options.seed).members(2) if ADD in bench.calls() else ()
        batches = _batches(bench)
        for _ in range(2):
            with watched(found.home) as seen:
                for member in members:
                    _quietly(found.destination.rows, member)
                texts = tuple(said(bench, found.destination, batches))
        bench.memory["watched"] = texts, seen
    return cast(tuple[Sequence[str], Seen], bench.memory["watched"])


def _quietly(call: Callable[..., object], *arguments: object) -> None:
    """A call of which only what it touches counts."""
    try:
        call(*arguments)
    except ConnectorError:
        return


def _untouched(bench: Bench, kind: str) -> str:
    done = _watch(bench)[1].of(kind)
    require(not done, f"it calls {', '.join(done)}")
    return "nothing"


@check("hygiene.clock", "A connector reads no clock.", "Use now_us of the batch.", _python_needed)
def _clock(bench: Bench) -> str:
    return _untouched(bench, "clock")


@check("hygiene.chance", "A connector draws no random numbers.", "Derive ids of the item, as by uuid5 or a digest.",
       _python_needed)  # fmt: skip
def _chance(bench: Bench) -> str:
    return _untouched(bench, "chance")


@check("hygiene.blocking", "A connector does not sleep, wait or start threads.",
       "Give Retry or RateLimited a time: the host waits.", _python_needed)  # fmt: skip
def _blocking(bench: Bench) -> str:
    return _untouched(bench, "blocking")


@check("hygiene.network", "A connector opens no connection, starts no process.", "Yield a Request: the host sends it.",
       _python_needed)  # fmt: skip
def _network(bench: Bench) -> str:
    return _untouched(bench, "network")


@check("hygiene.files", "A connector touches no files.", "Read it when the module is imported, by importlib.resources.",
       _python_needed)  # fmt: skip
def _files(bench: Bench) -> str:
    return _untouched(bench, "files")


@check("hygiene.environment", "A connector reads no environment variables.", "Make it a setting.", _python_needed)
def _environment(bench: Bench) -> str:
    return _untouched(bench, "environment")


@check("hygiene.quiet", "A connector prints and logs nothing.", "Say it in the reason of an outcome, a Skip or a Note.",
       _python_needed)  # fmt: skip
def _quiet(bench: Bench) -> str:
    _, seen = _watch(bench)
    require(not seen.output, "it prints")
    require(not seen.logged, "it logs")
    return "nothing"
