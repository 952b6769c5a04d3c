"""Watches what a connector's code does in this process: clocks, chance, sleep, network, files, environment, output."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from types import FrameType
from typing import Any

_CLOCKS = {
    time.time, time.time_ns, time.monotonic, time.monotonic_ns, time.perf_counter, time.perf_counter_ns,
}  # fmt: skip
"""Not that of the processor's time, which tells no time and is needed to limit what runs."""
_CLASS_CLOCKS = frozenset({"now", "utcnow", "today"})
_SLEEPS = frozenset({"sleep", "start_new_thread", "acquire_lock", "select", "poll"})
_SLEEPING_MODULES = frozenset({"time", "_thread", "select"})
_GENERATOR = getattr(random.random, "__self__", None)
_ENVIRONMENT = (os.environ.__class__.__getitem__.__code__, os.getenv.__code__)
_FILES = frozenset({"open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "shutil.copyfile"})
_NETWORK = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "urllib.", "http.client.")
_IMPORTING = "<frozen importlib"


@dataclass(slots=True)
class Seen:
    """What was done, each as a kind and a name: ("clock", "time")."""

    done: set[tuple[str, str]] = field(default_factory=set)
    output: str = ""
    logged: int = 0

    def of(self, kind: str) -> list[str]:
        """Names of what was done of a kind."""
        return sorted(name for found, name in self.done if found == kind)


class _Watch:
    """What is watched at the moment: audit hooks cannot be taken away, so there is one, which looks here."""

    installed = False
    seen: Seen | None = None
    home = ""


class _Records(logging.Handler):
    """Counts what the connector logs."""

    def __init__(self, seen: Seen, home: str) -> None:
        super().__init__(logging.DEBUG)
        self._seen, self._home = seen, home

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record that the connector's code made."""
        if record.pathname.startswith(self._home):
            self._seen.logged += 1


@contextlib.contextmanager
def watched(home: str) -> Iterator[Seen]:
    """Watch what code in a folder or file does, itself or by what it calls.

    Args:
        home: Path that the files of the code begin with.
    """
    if not _Watch.installed:
        sys.addaudithook(_audit)
        _Watch.installed = True
    seen = Seen()
    output = io.StringIO()
    root = logging.getLogger()
    level, handler = root.level, _Records(seen, home)
    before = sys.getprofile()
    # Others may time collections of garbage (Hypothesis does), and these come upon whatever code runs.
    collects = gc.isenabled()
    gc.disable()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        _Watch.seen, _Watch.home = seen, home
        sys.setprofile(_profile)
        try:
            yield seen
        finally:
            sys.setprofile(before if callable(before) else None)  # a profiler written in C cannot be put back
            _Watch.seen = None
            root.setLevel(level)
            root.removeHandler(handler)
            seen.output = output.getvalue()
            if collects:
                gc.enable()


def _profile(frame: FrameType, event: str, argument: Any) -> None:
    if event == "c_call":
        found = _kind_of(argument)
        if found:
            _note(found, argument.__name__, frame)
    elif event == "call" and frame.f_code in _ENVIRONMENT:
        _note("environment", "os.environ", frame)


def _kind_of(function: Callable[..., Any]) -> str:
    """What a function of C does that a connector must not; empty for nothing."""
    name, owner = function.__name__, getattr(function, "__self__", None)
    if name in _CLASS_CLOCKS and isinstance(owner, type) and issubclass(owner, date | datetime):
        return "clock"
    if name in ("urandom", "getrandbits", "random"):
        return "chance" if name == "urandom" or owner is _GENERATOR else ""
    if name in _SLEEPS and (
        function.__module__ in _SLEEPING_MODULES or getattr(owner, "__name__", "") in _SLEEPING_MODULES
    ):
        return "blocking"
    try:
        return "clock" if function in _CLOCKS else ""
    except TypeError:  # a method of something that has no hash
        return ""


def _audit(event: str, _: tuple[object, ...]) -> None:
    if _Watch.seen is None:
        return
    if event in _FILES:
        _note("files", event, sys._getframe(1))
    elif event.startswith(_NETWORK):
        _note("network", event, sys._getframe(1))


def _note(kind: str, name: str, frame: FrameType | None) -> None:
    """Note what was done, if the connector's code stands behind it and nothing is being imported."""
    seen, ours = _Watch.seen, False
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_IMPORTING):
            return
        ours = ours or path.startswith(_Watch.home)
        frame = frame.f_back
    if ours and seen is not None:
        seen.done.add((kind, name))
