"""What a person is told when a command fails: one sentence on standard error, and the exit status."""

from __future__ import annotations

import os
import sys

import typer

DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130


class CommandFailed(Exception):
    """A command cannot do what it was asked; the text says why and what to do."""

    status = FAILED


class UsageProblem(CommandFailed):
    """The command line, a file given to it or the environment is wrong; nothing was done."""

    status = USAGE


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text.rstrip("\n") + "\n")


def report(error: Exception) -> int:
    """Say why a command failed.

    Returns:
        The exit status.
    """
    if isinstance(error, CommandFailed):
        say(f"error: {error}")
        return error.status
    if isinstance(error, typer.TyperException):
        return _report_usage(error)
    if isinstance(error, typer.Abort):
        say("stopped")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader of the output has gone, as in `headrace ... | head`: nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(error, OSError) and error.filename is not None:
        say(f"error: {error.filename}: {error.strerror}")
        return FAILED
    return _report_defect(error)


def _report_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip()
    if message.startswith("Usage:"):  # a group called without a command shows its help
        say(message)
        return USAGE
    path = context.command_path if context is not None else "headrace"
    message = message.rstrip(".")
    end = "" if message.endswith("?") else "."
    say(f"error: {message}{end} See `{path} --help`.")
    return int(error.exit_code)


def _report_defect(error: Exception) -> int:
    if os.environ.get("HEADRACE_TRACEBACK"):
        raise error
    text = str(error).strip() or "no message"
    say(f"error: {type(error).__name__}: {text}. This is a defect: HEADRACE_TRACEBACK=1 shows where it happened.")
    return FAILED
