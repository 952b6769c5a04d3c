"""Runs the customer's script: a context of its own for each call, with limits of time, memory and depth.

The context knows no network, no files, no clock and no chance (see `prelude.js`); nothing that one call leaves behind
is seen by another. The engine is QuickJS-NG, by https://pypi.org/project/quickjs-ng/.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from quickjs import Context, JSException, StackOverflow

TIME_LIMIT_S = 0.05
"""Seconds of computing for a call, the script's own top level included."""
MEMORY_LIMIT_BYTES = 16 * 1024 * 1024
LONGEST_SCRIPT = 100_000
MOST_LINES = 2_000

_STACK_BYTES = 256 * 1024
_LEAST_TIME_S = 0.001
_END_PROCESS_S = 1.0
_LONGEST_MESSAGE = 300
# Lines of the prelude are numbered above all of the script's, which tells them apart in stack traces.
_ABOVE = "\n" * MOST_LINES
_PRELUDE = _ABOVE + files(__package__).joinpath("prelude.js").read_text(encoding="utf-8")
_HELPERS = _ABOVE + files(__package__).joinpath("helpers.js").read_text(encoding="utf-8")
_PLACE = re.compile(r"<input>:(\d+)(?::(\d+))?")
_LIKE_PERSONAL = re.compile(r"\S+@\S+|\+?\d[\d ().-]{4,}\d")
_HIDDEN = "…"


class ScriptError(Exception):
    """The script failed, or returned what cannot be used.

    Attributes:
        reason: What is wrong, without values of the event.
        line: Line of the script, from 1; 0 when there is none to name.
        column: Column in it, from 1; 0 when it is not known.
    """

    def __init__(self, reason: str, line: int = 0, column: int = 0) -> None:
        where = f"line {line}, column {column}: " if column else (f"line {line}: " if line else "")
        super().__init__(where + reason)
        self.reason = reason
        self.line = line
        self.column = column


class Script:
    """A script, compiled anew for each call."""

    def __init__(self, source: str) -> None:
        """Take a script that `check` has accepted."""
        self._source = source
        self._has_helpers = "headrace" in source

    def check(self) -> None:
        """Compile the script and run its top level.

        Raises:
            ScriptError: It does not compile, its top level fails, or it defines no function send.
        """
        answer = self._run("send", None, time_us=0, identity="")
        if answer.get("missing"):
            raise ScriptError("defines no function send(event, profile, settings)")

    def call(self, name: str, arguments: Sequence[Any], *, time_us: int, identity: str) -> list[dict[str, Any]] | None:
        """What a function of the script returns.

        Args:
            name: "send" or "forget".
            arguments: JSON.
            time_us: The only time that the script can know, in microseconds since 1970 UTC.
            identity: What Math.random is drawn from.

        Returns:
            A dictionary per request: "request" with its members but the body, and "text" or "json" with the body.
            None when the script has no such function.

        Raises:
            ScriptError: It failed.
        """
        answer = self._run(name, arguments, time_us=time_us, identity=identity)
        if answer.get("missing"):
            return None
        if answer.get("promise"):
            raise ScriptError(f"{name} returned a promise: it must return the requests themselves")
        requests: list[dict[str, Any]] = answer["requests"]
        return requests

    def _run(self, name: str, arguments: Sequence[Any] | None, *, time_us: int, identity: str) -> dict[str, Any]:
        """Run the script's top level, and a function unless there are no arguments."""
        try:
            text = json.dumps(arguments)
        except (ValueError, RecursionError):
            raise ScriptError("the event is nested too deep to be given to a script") from None
        seed = int.from_bytes(hashlib.sha256(identity.encode("utf-8", "replace")).digest()[:4], "big")
        context = Context()
        context.set_memory_limit(MEMORY_LIMIT_BYTES)
        context.set_max_stack_size(_STACK_BYTES)
        # A few of the engine's own loops (an array of 2**53 places that is reversed) look at no clock. The kernel then
        # ends this process; the host starts another, finds the event at fault and goes on with the others.
        signal.setitimer(signal.ITIMER_VIRTUAL, _END_PROCESS_S)
        try:
            run = context.eval(_PRELUDE)(time_us / 1000, seed)
            if self._has_helpers:
                context.eval(_HELPERS)
            until = time.process_time() + TIME_LIMIT_S
            context.set_time_limit(TIME_LIMIT_S)
            context.eval(self._source)
            context.set_time_limit(max(until - time.process_time(), _LEAST_TIME_S))
            if arguments is None:
                is_there = context.eval(f"typeof {name} === 'function'")
                return {} if is_there is True else {"missing": True}
            found = run(name, text)
        except JSException as error:
            raise _script_error(error, arguments) from None
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return _answer(found)


def _answer(found: Any) -> dict[str, Any]:
    """What the prelude gives, which the script may have tampered with."""
    try:
        answer = json.loads(found) if isinstance(found, str) else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not (answer.get("missing") or answer.get("promise") or _listed(answer)):
        raise ScriptError("what it returns cannot be written as JSON")
    return answer


def _listed(answer: Mapping[str, Any]) -> bool:
    requests = answer.get("requests")
    return isinstance(requests, list) and all(isinstance(one, dict) and "request" in one for one in requests)


def _script_error(error: JSException, arguments: Sequence[Any] | None) -> ScriptError:
    text = str(error)
    places = [(int(line), int(column or 0)) for line, column in _PLACE.findall(text)]
    line, column = next(((line, column) for line, column in places if line <= MOST_LINES), (0, 0))
    message = re.split(r"\n\s*at |\nundefined$|\n$", text)[0].strip()
    if isinstance(error, StackOverflow):
        message = "the script calls itself too deep"
    elif message == "InternalError: interrupted":
        message = f"the script takes longer than {TIME_LIMIT_S * 1000:g} ms"
    elif "out of memory" in message or message in ("null", "[uninitialized]"):
        # For want of memory the engine may not even make an error.
        message = f"the script takes more than {MEMORY_LIMIT_BYTES // 1024 // 1024} MB"
    else:
        message = _without_values(message, (arguments or ())[:-1]) or "the script failed without saying why"
        if not places:
            message += " (throw an Error, and its line is shown)"
    return ScriptError(message, line, column)


def _without_values(message: str, given: Sequence[Any]) -> str:
    """A message without what it quotes of the event and the person, and without what looks like a person's."""
    message = "".join(mark if mark.isprintable() else " " for mark in message)[: 4 * _LONGEST_MESSAGE]
    texts = sorted({text for text in _texts(given) if len(text) > 2}, key=len, reverse=True)
    for text in texts:
        if text.casefold() in message.casefold():
            message = re.sub(re.escape(text), _HIDDEN, message, flags=re.IGNORECASE)
    return _LIKE_PERSONAL.sub(_HIDDEN, message)[:_LONGEST_MESSAGE]


def _texts(value: Any) -> Iterator[str]:
    """Texts and numbers in JSON, not the names of members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        yield str(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    else:
        for inner in value:
            yield from _texts(inner)
