"""Writes the reference documents that are made from the code: commands, settings, gRPC, errors, telemetry, files, SDK.

scripts/gen_docs.py            writes them
scripts/gen_docs.py --check    fails when one is not what the code says; the tests run this
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import doc_conformance
import doc_sdk
import doc_telemetry
from google.protobuf import descriptor_pb2
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from headrace.cli import connection, main
from headrace.cli.command import shared_options
from headrace.cli.config.kinds import KINDS, Holds
from headrace.rpc.errors import REASONS
from headrace.rpc.scopes import SCOPES
from headrace.service import SERVICES, settings_class
from headrace.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs/reference"
MADE = "<!-- Made by scripts/gen_docs.py from the code: change that, then run it. -->"
PREFIX = "HEADRACE_"
CONNECTOR_PACKAGE = "headrace.api.connector.v1"


def commands() -> str:
    """docs/reference/commands.md."""
    shared = shared_options()
    variables = [f"`{PREFIX}{service.upper()}_ADDRESS`" for service in connection.SERVICES]
    lines = [
        "# Commands",
        "",
        MADE,
        "",
        "Exit status: 0 done, 1 failed, 2 the command line or a file was wrong, 130 interrupted. Errors are a sentence",
        "on standard error. `headrace COMMAND --help` says the same as this page.",
        "",
        "## Options of every command that calls a platform",
        "",
        *_table(("option", "", "else the variable, else the ready file's"), _shared_rows(shared)),
        "",
        "The ready file is `--ready-file`, else `HEADRACE_READY_FILE`, else `.headrace/ready.json` if it exists.",
        f"Addresses of single services are also taken from {', '.join(variables)}.",
        "",
        "`--json` writes the messages of the protos with their field names; 64-bit numbers are numbers, fields that",
        "hold JSON are JSON, enum values are in lower case without their prefix, and a list is an array.",
        "",
    ]
    for name in main.COMMANDS:
        lines += _command(f"headrace {name}", main.load(name), set(shared), level=2)
    return "\n".join(lines)


def _shared_rows(shared: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    variables = {
        "--ready-file": connection.READY_FILE_VARIABLE,
        "--token": connection.TOKEN_VARIABLE,
        "--workspace": connection.WORKSPACE_VARIABLE,
    }
    for option, help in shared.items():
        variable = variables.get(option, "")
        yield f"`{option}`", help, f"`{variable}`" if variable else ""


def _command(path: str, command: Any, shared: set[str], level: int) -> list[str]:
    context = command.context_class(command, info_name=path)
    heading = "#" * level
    text = " ".join((command.help or "").split())
    nested = getattr(command, "commands", None)
    if nested is not None:
        lines = [f"{heading} {path}", "", text, ""]
        for name, inner in nested.items():
            lines += _command(f"{path} {name}", inner, shared, level + 1)
        return lines
    given = {option for p in command.params for option in p.opts}
    hidden = shared if shared <= given else set()  # the table of shared options speaks of them
    own = [p for p in command.params if not hidden & set(p.opts) and p.name != "help"]
    arguments = " ".join(_argument(p) for p in own if p.param_type_name == "argument")
    lines = [f"{heading} {path}{' ' + arguments if arguments else ''}", "", text, ""]
    rows = [record for p in own if (record := p.get_help_record(context)) is not None]
    if rows:
        lines += [*_table(("", ""), ((f"`{names}`", help) for names, help in rows)), ""]
    if path in {"headrace apply", "headrace diff", "headrace export"}:
        lines += ["The files are described in [configuration files](configuration.md).", ""]
    return lines


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name or "").strip("[]{}").upper()
    many = "..." if parameter.nargs == -1 else ""
    return f"{name}{many}" if parameter.required else f"[{name}{many}]"


def settings() -> str:
    """docs/reference/settings.md."""
    lines = [
        "# Settings",
        "",
        MADE,
        "",
        "Every service reads its settings from environment variables, and from nothing else. A `HEADRACE_*` variable",
        "that no service knows is an error. `OTEL_EXPORTER_OTLP_ENDPOINT` and the other variables of OpenTelemetry say",
        "where spans go; without it they go nowhere.",
        "",
        "## All services",
        "",
        *_settings_table(ServiceSettings, set()),
        "",
    ]
    for service in SERVICES:
        model = settings_class(service)
        own = set(model.model_fields) - set(ServiceSettings.model_fields)
        lines += [f"## {service}", ""]
        if own:
            lines += [*_settings_table(model, set(ServiceSettings.model_fields)), ""]
        else:
            lines += ["None besides.", ""]
    rows = [
        (f"`{connection.READY_FILE_VARIABLE}`", "Ready file of the platform that commands call."),
        (f"`{connection.TOKEN_VARIABLE}`", "API token that commands show."),
        (f"`{connection.WORKSPACE_VARIABLE}`", "Workspace that commands work in."),
        (f"`{connection.INGEST_URL_VARIABLE}`", "URL that `headrace send` sends to."),
        (f"`{connection.WRITE_KEY_VARIABLE}`", "Write key that `headrace send` shows."),
        ("`HEADRACE_MONGOD`", "Program that `headrace up` starts as MongoDB."),
        ("`HEADRACE_REDIS_SERVER`", "Program that `headrace up` starts as Redis."),
        ("`HEADRACE_TRACEBACK`", "When set, a defect of a command shows where it happened."),
    ]
    return "\n".join([*lines, "## The command line", "", *_table(("variable", ""), rows), ""])


def _settings_table(model: type[ServiceSettings], left_out: set[str]) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        if name not in left_out:
            rows.append((f"`{PREFIX}{name.upper()}`", _default(field), field.description or ""))
    return _table(("variable", "default", ""), rows)


def _default(field: Any) -> str:
    if field.annotation is SecretStr:
        return "required" if field.is_required() else "none"
    if field.default is PydanticUndefined:
        return "required"
    return f"`{field.default}`" if field.default not in ("", None) else "empty"


def errors() -> str:
    """docs/reference/errors.md."""
    comments = dict(_reasons())
    assert comments.keys() == REASONS
    return "\n".join(
        [
            "# Errors",
            "",
            MADE,
            "",
            "Every gRPC error carries a `google.rpc.ErrorInfo` of the domain `headrace` with one of these reasons;",
            "wrong fields are in `BadRequest`, and `RetryInfo` says when trying again may help. Programs test the",
            "reason, not the message.",
            "",
            *_table(("reason", ""), ((f"`{reason}`", text) for reason, text in comments.items())),
            "",
            "## Scopes",
            "",
            "What an API token may do, in its workspace alone. `*` is all of them; a scope to write does not include",
            "the one to read.",
            "",
            *(f"- `{scope}`" for scope in sorted(SCOPES)),
            "",
        ]
    )


def _reasons() -> Iterator[tuple[str, str]]:
    """Reasons with their comments."""
    (file,) = [f for f in _protos() if f.name.endswith("common/v1/errors.proto")]
    comments = _comments(file)
    # Path of a value's comment: enum_type (5), index of the enum, value (2), index of the value.
    for index, value in enumerate(file.enum_type[0].value):
        if value.number:
            yield value.name.removeprefix("ERROR_REASON_"), comments[5, 0, 2, index]


@functools.cache
def _protos() -> list[descriptor_pb2.FileDescriptorProto]:
    """Our protos with their comments; descriptors at run time have none, so they are compiled again."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        buf = Path(sys.executable).parent / "buf"
        command = [str(buf), "build", "--as-file-descriptor-set", "-o", str(image)]
        subprocess.run(command, check=True, cwd=ROOT)  # noqa: S603 - the tool of this environment, fixed arguments
        files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
    return [f for f in files.file if f.package.startswith("headrace.api.")]


def _comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Comments by the path of what they stand before, as descriptor.proto numbers it."""
    return {tuple(x.path): " ".join(x.leading_comments.split()) for x in file.source_code_info.location}


def grpc() -> str:
    """docs/reference/grpc.md."""
    lines = [
        "# gRPC",
        "",
        MADE,
        "",
        "Every service also answers health (`readiness`, `liveness`) and reflection. Credentials are",
        "`authorization: Bearer <API token>`; [errors](errors.md) carry reasons. What holds for all methods is told in",
        "the [style of the interface](../api-style.md). What plugins serve is a",
        "[protocol of its own](connector-protocol.md).",
        "",
    ]
    return "\n".join([*lines, *_services(f for f in _protos() if f.package != CONNECTOR_PACKAGE)])


def connector_protocol() -> str:
    """docs/reference/connector-protocol.md."""
    lines = [
        "# The connector protocol",
        "",
        MADE,
        "",
        "What a connector in another language than Python serves; Python's is behind `headrace_sdk`. How such a",
        "plugin is started is told in [Writing a connector](../guides/connectors.md#in-another-language).",
        "",
    ]
    return "\n".join([*lines, *_services(f for f in _protos() if f.package == CONNECTOR_PACKAGE)])


def _services(protos: Iterable[descriptor_pb2.FileDescriptorProto]) -> list[str]:
    """Services with their methods, then messages with their fields."""
    lines: list[str] = []
    files = sorted(protos, key=lambda f: f.name)
    for file in files:
        comments = _comments(file)
        for at, service in enumerate(file.service):
            rows = []
            for index, method in enumerate(service.method):
                stream = "stream " if method.server_streaming else ""
                rows.append((f"`{method.name}`", f"{stream}`{_short(method.output_type)}`", comments[6, at, 2, index]))
            lines += [f"## {service.name}", "", f"`{file.package}.{service.name}`: {comments[6, at]}", ""]
            lines += [*_table(("method", "answers", ""), rows), ""]
    lines += ["# Messages", ""]
    for file in files:
        comments = _comments(file)
        for at, message in enumerate(file.message_type):
            rows = [
                (f"`{field.name}`", _type(field), comments[4, at, 2, index])
                for index, field in enumerate(message.field)
            ]
            lines += [f"## {message.name}", "", comments[4, at], ""]
            lines += [*_table(("field", "type", ""), rows), ""] if rows else []
        for at, enum in enumerate(file.enum_type):
            if enum.name == "ErrorReason":
                continue  # has a page of its own
            values = [(f"`{v.name}`", comments[5, at, 2, index]) for index, v in enumerate(enum.value)]
            lines += [f"## {enum.name}", "", comments[5, at], "", *_table(("value", ""), values), ""]
    return lines


def _type(field: descriptor_pb2.FieldDescriptorProto) -> str:
    name = _short(field.type_name) or field.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"{'repeated ' if field.label == field.LABEL_REPEATED else ''}{name}"


def _short(type_name: str) -> str:
    """A type of ours by its last name, others in full."""
    return type_name.rpartition(".")[2] if type_name.startswith(".headrace.") else type_name.removeprefix(".")


def configuration() -> str:
    """docs/reference/configuration.md."""
    held = {
        Holds.TEXT: "text",
        Holds.TEXTS: "list of texts",
        Holds.FLAG: "true or false",
        Holds.NUMBER: "number",
        Holds.OBJECT: "mapping",
        Holds.DEFINITION: "text or mapping",
        Holds.CHOICE: "word",
        Holds.REFERENCE: "id",
    }
    lines = [
        "# Configuration files",
        "",
        MADE,
        "",
        "`headrace apply -f FILE.yaml` makes a platform as the files say, `headrace diff` shows before what that would",
        "change, `headrace export` writes what is there. A file holds any number of YAML documents, each of one",
        "resource; `-f` can be repeated, and `-` is standard input.",
        "",
        "```yaml",
        "kind: Audience",
        "id: recent-viewers",
        "display_name: Viewed in the last 7 days",
        "active: true",
        "definition:",
        "  where: {event: Product viewed, within: 7d}",
        "---",
        "kind: Destination",
        "id: hook",
        "connector: webhook",
        'settings: {url: "https://example.com/hook", signing_secret: "${HOOK_SECRET}"}',
        "---",
        "kind: Sync",
        "id: viewers",
        "type: event",
        "destination: hook",
        "audience: recent-viewers",
        "```",
        "",
        "- Everything is checked before anything is changed: keys, values, references, definitions, connectors. What",
        "  is wrong is told with file and line.",
        "- What others refer to is made first. Applying again changes nothing. Nothing is ever deleted.",
        "- A key that is left out has its default, except what is switched in daily work (`active`, `paused`,",
        "  `disabled`): that stays as it is.",
        "- `${NAME}` is the environment variable NAME, as text, and it must be set; `$${` writes `${`, and `$$` a `$`.",
        "- Values are those of JSON: `yes` is a word, a date is text, numbers are decimal. Keys that come twice and",
        "  merge keys are refused.",
        "- Secrets are read back masked. The mask in a file leaves the stored secret; a secret in the clear is",
        "  compared by the platform when it is applied.",
        "- When the platform refuses something in the middle, what came before it is done; correct it and apply again.",
        "",
        "Exit status of `diff`: 0 no difference, 1 a difference (or the platform cannot be reached), 2 the files are",
        "wrong.",
        "",
    ]
    for kind in KINDS.values():
        rows = []
        for name, key in kind.keys.items():
            said = {"required": key.required, "cannot be changed": key.fixed, "stays when left out": key.switch}
            marks = [text for text, applies in said.items() if applies]
            holds = " or ".join(f"`{c}`" for c in key.choices) or held[key.holds]
            rows.append((f"`{name}`", holds, key.help, ", ".join(marks)))
        lines += [f"## {kind.name}", "", *_table(("key", "holds", "", ""), rows), ""]
    return "\n".join(lines)


def telemetry() -> str:
    """docs/reference/telemetry.md."""
    return "\n".join(["# Telemetry", "", MADE, "", *doc_telemetry.telemetry()])


def sdk() -> str:
    """docs/reference/sdk.md."""
    return doc_sdk.page(MADE)


def conformance() -> str:
    """docs/reference/conformance.md."""
    return doc_conformance.page(MADE)


def _table(headings: tuple[str, ...], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return lines


PAGES = {
    "commands": commands,
    "settings": settings,
    "errors": errors,
    "grpc": grpc,
    "connector-protocol": connector_protocol,
    "telemetry": telemetry,
    "configuration": configuration,
    "sdk": sdk,
    "conformance": conformance,
}


def run(check: bool) -> int:
    """Write the pages, or say which are not as they would be written."""
    stale = []
    for name, make in PAGES.items():
        path = REFERENCE / f"{name}.md"
        text = make()
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.relative_to(ROOT))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in stale:
        sys.stderr.write(f"{path} is not what the code says: run scripts/gen_docs.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(run("--check" in sys.argv[1:]))
