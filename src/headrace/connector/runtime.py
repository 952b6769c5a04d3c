"""The plugin's process: `python -m headrace.connector.runtime`. Loads one plugin and answers the host's calls.

The calls come on the process's standard input and are answered on what was its standard output. Whatever the plugin
itself prints goes to standard error, which the host reads, masks and keeps away from its logs. The process ends when
its input ends, or when its parent is gone.
"""

from __future__ import annotations

import importlib
import os
import resource
import struct
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pluggy
from pydantic import BaseModel, ValidationError

import headrace_sdk
from headrace.connector import frames, wire
from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Destination,
    Manifest,
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
_NOTHING = msgspec.Raw(msgspec.msgpack.encode(None))
_BLOCKED_AUDIT_EVENTS = frozenset(
    {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.bind", "socket.connect",
        "socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname", "socket.sendmsg", "socket.sendto",
        "subprocess.Popen",
    }
)  # fmt: skip
"""What a connector has no business doing. A guard against mistakes, no jail: a plugin is installed software."""


class OutsideRefused(PermissionError):
    """A connector tried to reach the outside: it does no I/O, it returns requests that the host sends."""


class CallError(Exception):
    """A call that failed in a way that the host should know."""

    def __init__(self, kind: str, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.failure = wire.Failure(kind=kind, reason=reason, field=field)


class Runtime:
    """One plugin and the configured instances of its connectors."""

    def __init__(self) -> None:
        self._manifests: dict[str, Manifest] = {}
        self._instances: dict[str, Destination[Any]] = {}
        self._package = ""
        self._methods: dict[str, tuple[type[msgspec.Struct], Callable[[Any], Any]]] = {
            "load": (frames.Load, self._load),
            "open": (frames.Open, self._open),
            "close": (frames.Close, self._close),
            "rows": (frames.RowsCall, self._rows),
            "add_members": (frames.MembersCall, lambda call: self._build("add_members", call)),
            "remove_members": (frames.MembersCall, lambda call: self._build("remove_members", call)),
            "send_events": (frames.EventsCall, lambda call: self._build("send_events", call)),
            "delete": (frames.DeleteCall, lambda call: self._build("delete", call)),
            "read": (frames.ReadCall, self._read),
            "normalise": (frames.NormaliseCall, self._normalise),
        }

    def answer(self, frame: bytes) -> bytes:
        """The reply to a call. Never raises for what a plugin does, short of ending the process."""
        _refused.clear()
        try:
            call = msgspec.msgpack.decode(frame, type=frames.Call)
            argument_type, method = self._methods[call.method]
            result = method(msgspec.msgpack.decode(call.argument, type=argument_type))
            if call.method == "load":
                _refused.clear()  # libraries look around when they are imported, and cope with being refused
            reply = frames.Reply(msgspec.Raw(_encoded(result)))
        except CallError as error:
            reply = frames.Reply(_NOTHING, error.failure)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            reply = frames.Reply(_NOTHING, wire.Failure(kind="defect", reason=_what_and_where(error, self._package)))
        return msgspec.msgpack.encode(reply)

    def _load(self, call: frames.Load) -> list[wire.ConnectorInfo]:
        if call.memory_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (call.memory_bytes, call.memory_bytes))
        self._package = call.value.partition(":")[0].partition(".")[0]
        try:
            plugin = EntryPoint(call.entry_point, call.value, hooks.ENTRY_POINT_GROUP).load()
            manager = pluggy.PluginManager("headrace")
            manager.add_hookspecs(hooks)
            manager.register(plugin, call.entry_point)
            manager.check_pending()
            offered = [manifest for answer in manager.hook.headrace_connectors() for manifest in answer]
        except (Exception, SystemExit) as error:
            text = str(error) if isinstance(error, ImportError | ValueError | pluggy.PluginValidationError) else ""
            raise CallError(
                "load", f"{_what_and_where(error, self._package)}{': ' if text else ''}{text[:500]}"
            ) from error
        for manifest in offered:
            if not isinstance(manifest, Manifest):
                raise CallError("load", f"headrace_connectors() returned a {type(manifest).__name__}, not a Manifest")
            if manifest.name in self._manifests:
                raise CallError("load", f"connector {manifest.name!r} is offered twice")
            self._manifests[manifest.name] = manifest
        if not offered:
            raise CallError("load", "it offers no connector: headrace_connectors() is missing or returned none")
        return [wire.describe(manifest) for manifest in offered]

    def _open(self, call: frames.Open) -> None:
        manifest = self._manifests[call.connector]
        try:
            settings = manifest.settings.model_validate(call.settings)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise CallError("config", f"{field or 'settings'}: {first['msg']}", field) from error
        try:
            self._instances[call.instance] = _connector_class(manifest)(settings)
        except ConfigError as error:
            raise CallError("config", error.reason, error.field) from error

    def _without_settings(self, connector: str) -> Destination[Any]:
        """A connector with the defaults of its settings alone, good for normalising values."""
        manifest = self._manifests[connector]
        return _connector_class(manifest)(manifest.settings.model_construct())

    def _close(self, call: frames.Close) -> None:
        self._instances.pop(call.instance, None)

    def _rows(self, call: frames.RowsCall) -> list[wire.MemberRows]:
        connector = self._instances[call.instance]
        found = []
        for member in call.members:
            try:
                found.append(wire.MemberRows(rows=tuple(connector.rows(member))))
            except RecordRejected as error:
                found.append(wire.MemberRows(rejected=Rejected(reason=error.reason, field=error.field)))
        return found

    def _build(self, operation: str, call: Any) -> wire.BuiltBatch:
        connector = self._instances[call.instance]
        requests, skipped, notes = [], [], []
        built: Iterable[object] = getattr(connector, operation)(call.batch)
        for item in built:
            if isinstance(item, Request):
                requests.append(item)
            elif isinstance(item, Skip):
                skipped.append(item)
            elif isinstance(item, Note):
                notes.append(item)
            else:
                raise CallError("defect", f"{operation} yielded a {type(item).__name__}")
        return wire.BuiltBatch(requests=tuple(requests), skipped=tuple(skipped), notes=tuple(notes))

    def _read(self, call: frames.ReadCall) -> list[frames.ReadFrame]:
        connector = self._instances[call.instance]
        return [frames.read_frame(self._read_one(connector, request, response)) for request, response in call.reads]

    def _read_one(self, connector: Destination[Any], request: Request, response: Response) -> wire.ReadResult:
        """What one answer means; a failure stays with it."""
        try:
            outcomes = connector.read(request, response)
        except ConnectorError as error:
            outcomes = _outcomes_of(request, error)
        except (Exception, SystemExit) as error:
            where = _what_and_where(error, self._package)
            return wire.ReadResult(failure=wire.Failure(kind="defect", reason=where))
        if not isinstance(outcomes, Outcomes):
            reason = f"read returned a {type(outcomes).__name__}, not Outcomes"
            return wire.ReadResult(failure=wire.Failure(kind="defect", reason=reason))
        return wire.ReadResult(outcomes=outcomes)

    def _normalise(self, call: frames.NormaliseCall) -> list[wire.NormalisedValue]:
        connector = self._instances[call.instance] if call.instance else self._without_settings(call.connector)
        found = []
        for field, value in call.values:
            try:
                made = connector.normalise(field, value)
                found.append(wire.NormalisedValue(normalised=made.normalised, sent=made.sent))
            except RecordRejected as error:
                found.append(wire.NormalisedValue(rejected=error.reason))
        return found


def _encoded(result: object) -> bytes:
    """A result as msgpack, unless the call may not have one."""
    if _refused:
        raise CallError("defect", f"it tried to reach the outside ({_refused[0]}): a connector does no I/O")
    encoded = msgspec.msgpack.encode(result)
    if len(encoded) > frames.MAX_FRAME_BYTES - 1024:
        raise CallError("defect", "its answer is larger than a frame may be")
    return encoded


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
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    home = getattr(sys.modules.get(package), "__file__", None) or ""
    home = home.removesuffix("__init__.py")
    own = [frame for frame in frames if home and frame.filename.startswith(home)]
    foreign = [frame for frame in frames if not frame.filename.startswith((*_OWN, _STANDARD_LIBRARY))]
    place = next(reversed(own or foreign), None)
    where = f" at {Path(place.filename).name}:{place.lineno}" if place else ""
    return f"{type(error).__name__}{where}"


def frames_in(stream: BinaryIO) -> Iterator[bytes]:
    """The frames of a stream, until it ends."""
    while len(head := stream.read(4)) == 4:
        (length,) = struct.unpack(">I", head)
        if length > frames.MAX_FRAME_BYTES:
            return
        body = stream.read(length)
        if len(body) < length:
            return
        yield body


_refused: list[str] = []
"""Audit events that were refused during the call under way: a plugin may swallow the exception."""


def _refuse_outside(event: str, arguments: tuple[object, ...]) -> None:
    if event in _BLOCKED_AUDIT_EVENTS:
        _refused.append(event)
        raise OutsideRefused("a connector does no I/O: it returns requests, and the host sends them")


def _end_with_parent(parent: int) -> None:
    """End the process when its parent is gone, even while the plugin hangs in a loop."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Serve one host until it closes the input."""
    calls = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what the plugin prints must not end up between the replies
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold secrets
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    sys.addaudithook(_refuse_outside)
    runtime = Runtime()
    for frame in frames_in(calls):
        reply = runtime.answer(frame)
        sys.stdout.flush()
        sys.stderr.flush()
        replies.write(struct.pack(">I", len(reply)) + reply)
        replies.flush()


if __name__ == "__main__":
    main()
