"""`headrace serve SERVICE`: one service, configured by HEADRACE_* environment variables alone."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping

import typer
from pydantic import ValidationError

from headrace.cli import connection
from headrace.cli.problems import UsageProblem
from headrace.service import SERVICES, open_service_of, run, settings_class
from headrace.settings import ServiceSettings

PREFIX = "HEADRACE_"

PROCESS_VARIABLES = frozenset(
    {
        "HEADRACE_MONGOD",  # program that `headrace up` starts
        "HEADRACE_REDIS_SERVER",  # likewise
        "HEADRACE_TRACEBACK",  # the command line shows where a defect happened
        *(connection.READY_FILE_VARIABLE, connection.TOKEN_VARIABLE, connection.WORKSPACE_VARIABLE),
        *(connection.INGEST_URL_VARIABLE, connection.WRITE_KEY_VARIABLE),  # which platform commands talk to
    }
)
"""Variables that are read by the command line itself, not by a service's settings."""


def serve(
    service: str = typer.Argument(..., metavar="SERVICE", help=f"One of: {', '.join(SERVICES)}."),
) -> int:
    """Run one service until SIGTERM or Ctrl-C, then drain; its settings are HEADRACE_* variables."""
    return run(service, load_settings(service, os.environ), open_service_of(service))


def load_settings(service: str, environment: Mapping[str, str]) -> ServiceSettings:
    """The settings of a service.

    Args:
        service: Name of the service.
        environment: Environment variables of this process; the settings are read from the process itself.

    Raises:
        UsageProblem: There is no such service, a HEADRACE_* variable is unknown, or a setting is missing or wrong.
    """
    if service not in SERVICES:
        raise UsageProblem(f"there is no service {service!r}: choose one of {', '.join(SERVICES)}")
    refuse_unknown(environment)
    try:
        return settings_class(service)()
    except ValidationError as error:
        raise settings_problem(error) from None


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """Refuse HEADRACE_* variables that no service knows: a misspelt setting must not pass silently.

    Raises:
        UsageProblem: Names the variables, and what was probably meant.
    """
    known = known_variables()
    unknown = sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise UsageProblem("; ".join(_unknown(name, known) for name in unknown))


def known_variables() -> frozenset[str]:
    """Every HEADRACE_* variable that means something to a service or to the command line."""
    fields: Iterable[str] = (field for service in SERVICES for field in settings_class(service).model_fields)
    return PROCESS_VARIABLES | {PREFIX + field.upper() for field in fields}


def _unknown(name: str, known: Iterable[str]) -> str:
    names = sorted(variable.removeprefix(PREFIX) for variable in known)  # the prefix makes all of them alike
    near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), names, n=1, cutoff=0.75)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "unset it"
    return f"unknown setting {name}: {hint}"


def settings_problem(error: ValidationError) -> UsageProblem:
    """What is wrong with which variables, without their values: they may be secrets."""
    problems = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        variable = PREFIX + ".".join(str(part) for part in problem["loc"]).upper()
        problems.append(
            f"{variable} is not set" if problem["type"] == "missing" else f"{variable}: {problem['msg'].lower()}"
        )
    return UsageProblem("settings from the environment: " + "; ".join(problems))
