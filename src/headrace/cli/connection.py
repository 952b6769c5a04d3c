"""Where the platform is, and with which credentials it is called: one place for all commands that need one.

Each value is looked for on the command line, in the environment, then in a ready file as `headrace up` writes it:

- the ready file: `--ready-file`, HEADRACE_READY_FILE, else `.headrace/ready.json` if it exists;
- gRPC addresses: `--address` (for all services, behind one gateway, or SERVICE=HOST:PORT), HEADRACE_*_ADDRESS;
- the token: `--token`, HEADRACE_API_TOKEN; the workspace: `--workspace`, HEADRACE_WORKSPACE.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from headrace.cli.problems import UsageProblem

SERVICES = ("ingest", "identity", "audience", "sync", "workspace")
"""gRPC services' short names, as in the ready file."""

DEFAULT_READY_FILE = Path(".headrace/ready.json")
READY_FILE_VARIABLE = "HEADRACE_READY_FILE"
TOKEN_VARIABLE = "HEADRACE_API_TOKEN"  # noqa: S105 - names a variable
WORKSPACE_VARIABLE = "HEADRACE_WORKSPACE"
INGEST_URL_VARIABLE = "HEADRACE_INGEST_URL"
WRITE_KEY_VARIABLE = "HEADRACE_WRITE_KEY"

HOW_TO_CONNECT = "start one by `headrace up`, or name one by --ready-file or by --address and --token"


class _ReadyFile(msgspec.Struct, frozen=True):
    """The parts of a ready file that commands use."""

    ingest_http: str = ""
    grpc: dict[str, str] = {}
    workspace: str = ""
    write_key: str = ""
    api_token: str = ""


@dataclass(frozen=True)
class Connection:
    """Addresses and credentials of a running platform; what is unknown is empty."""

    workspace: str = ""
    """Workspace id."""
    token: str = field(default="", repr=False)
    """API token or service token."""
    grpc: Mapping[str, str] = field(default_factory=dict)
    """Host and port by short name of the service."""
    ingest_http: str = ""
    """URL of ingest's HTTP port."""
    write_key: str = field(default="", repr=False)
    """Write key of the first workspace's source."""

    def address(self, service: str) -> str:
        """Host and port of a service.

        Raises:
            UsageProblem: It is not known.
        """
        address = self.grpc.get(service, "")
        if not address:
            raise UsageProblem(f"the address of {service} is not known: {HOW_TO_CONNECT}")
        return address

    @property
    def parent(self) -> str:
        """Resource name of the workspace.

        Raises:
            UsageProblem: No workspace was named.
        """
        if not self.workspace:
            raise UsageProblem(f"no workspace is named: pass --workspace or set {WORKSPACE_VARIABLE}")
        return f"workspaces/{self.workspace}"


def resolve(
    *,
    ready_file: Path | None = None,
    addresses: Sequence[str] = (),
    token: str | None = None,
    workspace: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Connection:
    """Find the platform.

    Args:
        ready_file: As given by --ready-file.
        addresses: As given by --address.
        token: As given by --token.
        workspace: As given by --workspace.
        environment: Environment variables.

    Raises:
        UsageProblem: A ready file is missing or wrong, or an address has no form.
    """
    grpc = {s: environment[f"HEADRACE_{s.upper()}_ADDRESS"] for s in SERVICES if _has_address(environment, s)}
    grpc |= _addresses(addresses)
    ready = _ready(ready_file, environment, needed=len(grpc) < len(SERVICES))
    return Connection(
        workspace=workspace or environment.get(WORKSPACE_VARIABLE, "") or ready.workspace,
        token=token or environment.get(TOKEN_VARIABLE, "") or ready.api_token,
        grpc={**ready.grpc, **grpc},
        ingest_http=environment.get(INGEST_URL_VARIABLE, "") or ready.ingest_http,
        write_key=environment.get(WRITE_KEY_VARIABLE, "") or ready.write_key,
    )


def _has_address(environment: Mapping[str, str], service: str) -> bool:
    return bool(environment.get(f"HEADRACE_{service.upper()}_ADDRESS"))


def _addresses(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        service, equals, address = text.partition("=")
        if not equals:
            found = {**dict.fromkeys(SERVICES, text), **found}
        elif service in SERVICES and address:
            found[service] = address
        else:
            raise UsageProblem(f"--address {text}: write HOST:PORT or one of {', '.join(SERVICES)} = HOST:PORT")
    return found


def _ready(given: Path | None, environment: Mapping[str, str], *, needed: bool) -> _ReadyFile:
    path = given or Path(environment.get(READY_FILE_VARIABLE, "") or DEFAULT_READY_FILE)
    explicit = given is not None or bool(environment.get(READY_FILE_VARIABLE))
    try:
        return read_ready_file(path)
    except FileNotFoundError:
        if explicit:
            raise UsageProblem(f"the ready file {path} does not exist: is `headrace up` running?") from None
        return _ReadyFile()
    except UsageProblem:
        if explicit or needed:
            raise
        return _ReadyFile()


def read_ready_file(path: Path) -> _ReadyFile:
    """Read a ready file.

    Raises:
        FileNotFoundError: There is none.
        UsageProblem: It is not one.
    """
    try:
        content: Any = json.loads(path.read_bytes())
        return msgspec.convert(content, _ReadyFile)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise UsageProblem(f"{path} is no ready file of `headrace up`: {error}") from None
