"""One Python plugin, loaded, and the configured instances of its connectors: what it answers to the host's calls."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

import headrace_sdk
from headrace.connector import guard, operations, wire
from headrace.connector.delivering import Deliverer
from headrace.connector.operations import MAX_MESSAGE_BYTES, WRONG_SHAPE, Operation, Settings, Values
from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Destination,
    Manifest,
    Member,
    Note,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    Skip,
    TransientError,
    hooks,
)

_OWN = (str(Path(__file__).parent), str(Path(headrace_sdk.__file__).parent))
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_LOADERS = (str(Path(importlib.__file__).parent), str(Path(pluggy.__file__).parent))
_LONGEST_TEXT = 500
_MOST_PROBLEMS = 20
TRACEBACKS_VARIABLE = "HEADRACE_PLUGIN_TRACEBACKS"
"""When set, exceptions of a plugin are printed whole, for its author: their texts may hold data of the samples."""


class CallError(Exception):
    """A call that failed.

    Attributes:
        kind: "load" (the plugin cannot be loaded), "config" (the settings cannot work) or "defect" (it broke its
            contract).
        reason: One sentence without values.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Calls:
    """A plugin and its instances. Nothing is imported before it is asked what it offers."""

    def __init__(self, entry_points: Sequence[tuple[str, str]]) -> None:
        """Take a plugin.

        Args:
            entry_points: (name, "package.module") of each of its entry points.
        """
        self._entry_points = tuple(entry_points)
        self._manifests: dict[str, Manifest] = {}
        self._instances: dict[str, Destination[Any]] = {}
        self._deliverers: dict[str, Deliverer] = {}
        self._package = ""
        self._serving: Mapping[Operation[Any, Any], Callable[[str, Any], Any]] = {
            operations.LOAD: lambda _, __: self._load(),
            operations.OPEN: self._open,
            operations.ROWS: self._rows,
            operations.ADD_MEMBERS: lambda instance, batch: self._build("add_members", instance, batch),
            operations.REMOVE_MEMBERS: lambda instance, batch: self._build("remove_members", instance, batch),
            operations.SEND_EVENTS: lambda instance, batch: self._build("send_events", instance, batch),
            operations.DELETE: lambda instance, batch: self._build("delete", instance, batch),
            operations.READ: self._read,
            operations.NORMALISE: self._normalise,
            operations.POLL: lambda instance, job: self._instances[instance].poll(job),
            operations.CHECKS: lambda instance, _: list(self._instances[instance].check()),
            operations.READ_CHECK: lambda instance, asked: self._instances[instance].read_check(*asked),
            operations.LISTS: lambda instance, page: self._instances[instance].lists(page),
            operations.CREATE_LIST: lambda instance, name: self._instances[instance].create_list(name),
            operations.READ_LISTS: self._read_lists,
        }

    def answer(self, operation: Operation[Any, Any], data: bytes) -> bytes:
        """The response message to a request message, both serialised.

        Raises:
            CallError: There is none. Nothing else that a plugin does raises, short of ending the process.
        """
        guard.refused.clear()
        try:
            request = operation.request.FromString(data)
            argument = operation.argument_of(request)
        except WRONG_SHAPE as error:
            raise CallError("defect", f"the request of {operation.name} has a wrong shape") from error
        try:
            result = self._serving[operation](getattr(request, "instance", ""), argument)
        except CallError:
            raise
        except ConfigError as error:
            raise CallError("config", error.reason) from error
        except (Exception, SystemExit) as error:
            raise CallError("defect", _what_and_where(error, self._package)) from error
        if operation is operations.LOAD:
            guard.refused.clear()  # libraries look around when they are imported, and cope with being refused
        if guard.refused:
            reason = f"it tried to reach the outside ({guard.refused[0]}): a connector does no I/O"
            raise CallError("defect", reason)
        try:
            response = operation.response_message(result).SerializeToString()
        except WRONG_SHAPE as error:
            raise CallError("defect", f"its answer to {operation.name} has a wrong shape") from error
        if len(response) > MAX_MESSAGE_BYTES:
            raise CallError("defect", f"its answer to {operation.name} is larger than a message may be")
        return response

    async def answer_waiting(self, operation: Operation[Any, Any], data: bytes) -> bytes:
        """The same for the calls in which a connector may wait: DELIVER, of which several may be under way, and CLOSE.

        Raises:
            CallError: There is no response. CancelledError aside, nothing else is raised.
        """
        try:
            request = operation.request.FromString(data)
            asked = operation.argument_of(request)
        except WRONG_SHAPE as error:
            raise CallError("defect", f"the request of {operation.name} has a wrong shape") from error
        instance = getattr(request, "instance", "")
        try:
            result = await (self._close(instance) if operation is operations.CLOSE else self._deliver(instance, asked))
            return operation.response_message(result).SerializeToString()
        except (Exception, SystemExit) as error:
            raise CallError("defect", _what_and_where(error, self._package)) from error

    async def _deliver(self, instance: str, asked: wire.ToDeliver) -> wire.Delivery:
        deliverer = self._deliverers.get(instance)
        if deliverer is None:
            deliverer = self._deliverers[instance] = Deliverer(self._instances[instance])
        return await deliverer.deliver(asked)

    async def _close(self, instance: str) -> None:
        self._instances.pop(instance, None)
        deliverer = self._deliverers.pop(instance, None)
        if deliverer is not None:
            await deliverer.close()

    def _load(self) -> list[wire.ConnectorInfo]:
        for name, value in self._entry_points:
            self._package = value.partition(":")[0].partition(".")[0]
            for manifest in self._offered(name, value):
                if not isinstance(manifest, Manifest):
                    kind = type(manifest).__name__
                    raise CallError("load", f"headrace_connectors() returned a {kind}, not a Manifest")
                if manifest.name in self._manifests:
                    raise CallError("load", f"connector {manifest.name!r} is offered twice")
                self._manifests[manifest.name] = manifest
        return [wire.describe(manifest) for manifest in self._manifests.values()]

    def _offered(self, name: str, value: str) -> list[object]:
        """What an entry point's hook gives."""
        try:
            plugin = EntryPoint(name, value, hooks.ENTRY_POINT_GROUP).load()
            manager = pluggy.PluginManager("headrace")
            manager.add_hookspecs(hooks)
            manager.register(plugin, name)
            manager.check_pending()
            offered = [manifest for answer in manager.hook.headrace_connectors() for manifest in answer]
        except (Exception, SystemExit) as error:
            text = str(error) if isinstance(error, ImportError | ValueError | pluggy.PluginValidationError) else ""
            where = _what_and_where(error, self._package)
            raise CallError("load", f"{where}{': ' if text else ''}{text[:_LONGEST_TEXT]}") from error
        if not offered:
            raise CallError("load", "it offers no connector: headrace_connectors() is missing or returned none")
        return offered

    def _open(self, instance: str, asked: Settings) -> wire.SettingsProblem | None:
        manifest = self._manifests[asked.connector]
        try:
            settings = manifest.settings.model_validate(asked.values)
        except ValidationError as error:
            return _problem_of(error)
        try:
            self._instances[instance] = _connector_class(manifest)(settings)
        except ConfigError as error:
            return wire.SettingsProblem(reason=error.reason, field=error.field)
        return None

    def _without_settings(self, connector: str) -> Destination[Any]:
        """A connector with the defaults of its settings alone, good for normalising values."""
        manifest = self._manifests[connector]
        return _connector_class(manifest)(manifest.settings.model_construct())

    def _rows(self, instance: str, members: Sequence[Member]) -> list[wire.MemberRows]:
        connector = self._instances[instance]
        found = []
        for member in members:
            try:
                found.append(wire.MemberRows(rows=tuple(connector.rows(member))))
            except RecordRejected as error:
                found.append(wire.MemberRows(rejected=Rejected(reason=error.reason, field=error.field)))
        return found

    def _build(self, method: str, instance: str, batch: object) -> wire.BuiltBatch:
        connector = self._instances[instance]
        requests, skipped, notes = [], [], []
        built: Iterable[object] = getattr(connector, method)(batch)
        for item in built:
            if isinstance(item, Request):
                requests.append(item)
            elif isinstance(item, Skip):
                skipped.append(item)
            elif isinstance(item, Note):
                notes.append(item)
            else:
                raise CallError("defect", f"{method} yielded a {type(item).__name__}")
        return wire.BuiltBatch(requests=tuple(requests), skipped=tuple(skipped), notes=tuple(notes))

    def _read(self, instance: str, exchanges: Sequence[tuple[Request, Response]]) -> list[wire.ReadResult]:
        connector = self._instances[instance]
        return [self._read_one(connector, request, response) for request, response in exchanges]

    def _read_one(self, connector: Destination[Any], request: Request, response: Response) -> wire.ReadResult:
        """What one answer means; a failure stays with it."""
        try:
            outcomes = connector.read(request, response)
        except ConnectorError as error:
            outcomes = _outcomes_of(request, error)
        except (Exception, SystemExit) as error:
            return wire.ReadResult(failure=_what_and_where(error, self._package))
        if not isinstance(outcomes, Outcomes):
            return wire.ReadResult(failure=f"read returned a {type(outcomes).__name__}, not Outcomes")
        return wire.ReadResult(outcomes=outcomes)

    def _read_lists(self, instance: str, exchange: tuple[Request, Response]) -> wire.FoundLists:
        try:
            found = self._instances[instance].read_lists(*exchange)
        except ConnectorError as error:
            return wire.FoundLists(problem=error.reason)
        return wire.FoundLists(lists=found.lists, next_page=found.next_page)

    def _normalise(self, instance: str, asked: Values) -> list[wire.NormalisedValue]:
        connector = self._instances[instance] if instance else self._without_settings(asked.connector)
        found = []
        for field, value in asked.values:
            try:
                made = connector.normalise(field, value)
                found.append(wire.NormalisedValue(normalised=made.normalised, sent=made.sent))
            except RecordRejected as error:
                found.append(wire.NormalisedValue(rejected=error.reason))
        return found


def _problem_of(error: ValidationError) -> wire.SettingsProblem:
    """All that is wrong with settings, as far as a form has room for it. Their values are not told."""
    problems = []
    for one in error.errors(include_input=False, include_url=False, include_context=False)[:_MOST_PROBLEMS]:
        field = ".".join(str(part) for part in one["loc"])
        problems.append(wire.SettingsProblem(reason=f"{field or 'settings'}: {one['msg']}", field=field))
    return dataclasses.replace(problems[0], others=tuple(problems[1:]))


def _connector_class(manifest: Manifest) -> Callable[[BaseModel], Destination[Any]]:
    module_name, _, class_name = manifest.factory.partition(":")
    found = getattr(importlib.import_module(module_name), class_name)
    if not (isinstance(found, type) and issubclass(found, Destination)):
        raise CallError("defect", f"{manifest.factory} is no Destination")
    return found


def _outcomes_of(request: Request, error: ConnectorError) -> Outcomes:
    """An error for a whole request, as outcomes of its items."""
    if isinstance(error, RecordRejected):
        return Outcomes.every(request, Rejected(reason=error.reason, field=error.field))
    after_s = error.after_s if isinstance(error, RateLimited | TransientError) else None
    items = (Retry(reason=error.reason, after_s=after_s),) * len(request.items)
    if isinstance(error, AuthError):
        return Outcomes(items=items, unauthorized=error.reason)
    if isinstance(error, ConfigError):
        return Outcomes(items=items, misconfigured=error.reason)
    if isinstance(error, RateLimited):
        return Outcomes(items=items, throttle_s=after_s or 0.0)
    return Outcomes(items=items)


def _what_and_where(error: BaseException, package: str = "") -> str:
    """Type and place of an exception. Not its text, which may quote a secret or a personal datum.

    Args:
        error: The exception.
        package: Top-level package of the plugin: the last line in it is the place, if there is one.
    """
    if os.environ.get(TRACEBACKS_VARIABLE):
        _print_whole(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    home = getattr(sys.modules.get(package), "__file__", None) or ""
    home = home.removesuffix("__init__.py")
    own = [frame for frame in frames if home and frame.filename.startswith(home)]
    foreign = [frame for frame in frames if not frame.filename.startswith((*_OWN, _STANDARD_LIBRARY))]
    place = next(reversed(own or foreign), None)
    where = f" at {Path(place.filename).name}:{place.lineno}" if place else ""
    return f"{type(error).__name__}{where}"


def _print_whole(error: BaseException) -> None:
    """Print an exception with the lines that led to it, those of the platform left out."""
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list(
        [frame for frame in told.stack if not frame.filename.startswith((*_OWN, "<", *_LOADERS))]
    )
    sys.stderr.write("".join(told.format()))
