"""docs/reference/sdk.md, read from the source of the SDK: every public name, its exact signature and its docstring."""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import headrace_sdk
from headrace_sdk import answers, commerce, samples, settings, values
from headrace_sdk.deprecation import DEPRECATED

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/headrace_sdk"

SECTIONS = {
    "The connector": ("Destination", "Built", "Normalised", "Job", "Check", "VendorList", "Lists"),
    "The manifest": (
        "Manifest", "Capability", "Field", "FieldType", "StandardEvent", "Sources", "ApiVersions", "BatchPolicy",
        "RateLimit", "LimitScope", "RetryPolicy", "Idempotency",
    ),
    "Authentication": (
        "Auth", "ApiKey", "Bearer", "Basic", "OAuth2", "Grant", "ServiceAccount", "Signed", "Encoding", "AwsSignature",
    ),
    "What a connector is given": (
        "Member", "Row", "MemberBatch", "EventItem", "EventBatch", "Profile", "Subject", "DeleteBatch", "Response",
    ),
    "What a connector gives back": (
        "Request", "Skip", "Note", "Outcomes", "Outcome", "Delivered", "Warned", "Rejected", "Retry", "Pending",
    ),
    "Errors": ("ConnectorError", "ConfigError", "AuthError", "RateLimited", "TransientError", "RecordRejected"),
    "Registration and helpers": ("hookimpl", "ENTRY_POINT_GROUP", "API_VERSION", "digest_key", "iso_time"),
}  # fmt: skip
INTRODUCTION = """\
Every name that `headrace_sdk` exports, with its exact signature. The tour is in
[Writing a connector](../guides/connectors.md). Times are whole microseconds since 1970 UTC (`*_us`), durations seconds
(`*_s`).
"""


def page(made: str) -> str:
    """The page.

    Args:
        made: A comment that says how the page is made.

    Raises:
        ValueError: A public name has no section, or no docstring.
    """
    shown = [name for names in SECTIONS.values() for name in names]
    if missing := sorted(set(headrace_sdk.__all__) ^ set(shown)):
        raise ValueError(f"scripts/doc_sdk.py: give these names a section, or take them out: {', '.join(missing)}")
    written = _written()
    lines = ["# The connector SDK", "", made, "", INTRODUCTION]
    for title, names in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += _section(name, getattr(headrace_sdk, name), written)
    modules = {"Settings": settings, "Values": values, "Commerce": commerce, "Answers": answers, "Test data": samples}
    for title, module in modules.items():
        prose = _prose((module.__doc__ or "").partition("\n")[2])
        lines += [f"## {title}", "", *prose, "", f"In `{module.__name__}`.", ""]
        for name in module.__all__:
            lines += _section(name, getattr(module, name), written)
    return "\n".join([*lines, *_deprecated()]).rstrip() + "\n"


def _deprecated() -> Iterator[str]:
    """The table of names that are on their way out."""
    yield from ("## Deprecated", "")
    if not DEPRECATED:
        yield "Nothing at present. [How names go](../guides/connectors.md#versions-of-the-plugin-api)."
        return
    yield from ("| name | instead | since | removed in |", "| --- | --- | --- | --- |")
    for name, one in sorted(DEPRECATED.items()):
        yield f"| `{name}` | `{one.instead}` | {one.since} | {one.removed_in} |"


def _section(name: str, value: Any, written: dict[str, str]) -> list[str]:
    return [f"### `{name}`", "", "```python", block(name, value), "```", "", *_text(name, value, written), ""]


def block(name: str, value: Any) -> str:
    """The code block for a public name: its signature, its public methods, its members."""
    if isinstance(value, str):
        return f'{name} = "{value}"'
    if not isinstance(value, type):
        if callable(value) and not typing.get_origin(value) and hasattr(value, "__name__"):
            return f"def {name}{_signature(value)}"
        if typing.get_origin(value) is typing.Annotated:
            return f"{name} = Annotated[{value.__origin__.__name__}, ...]"
        return f"{name} = {_plain(str(value))}" if typing.get_args(value) else name
    if issubclass(value, enum.Enum):
        return "\n".join([f"class {name}(StrEnum)", *(f'    {member.name} = "{member.value}"' for member in value)])
    bases = [base.__name__ for base in value.__bases__ if base.__module__.startswith("headrace_sdk")]
    if issubclass(value, Exception) and not bases:
        bases = [value.__bases__[0].__name__]
    lines = [f"class {name}({', '.join(bases)})" if bases else f"class {name}", f"    {name}{_made_by(value)}"]
    for method, function in _methods(value):
        kind = "classmethod " if isinstance(vars(value)[method], classmethod) else ""
        lines.append(f"    {kind}{method}{_signature(function)}")
    return "\n".join(lines)


def _methods(value: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(value).items():
        function = member.__func__ if isinstance(member, classmethod) else member
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def _made_by(value: type) -> str:
    if issubclass(value, Exception) and "__init__" not in vars(value):
        return "(reason)"
    shown: list[str] = []
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = parameter.default
        if default is parameter.empty:
            shown.append(parameter.name)
        elif type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
            shown.append(f"{parameter.name}=...")
        else:
            text = f"{type(default).__name__}.{default.name}" if isinstance(default, enum.Enum) else repr(default)
            shown.append(f"{parameter.name}={text}")
    return f"({', '.join(shown)})"


def _signature(function: Any) -> str:
    return re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", _plain(str(inspect.signature(function))))


def _plain(text: str) -> str:
    return re.sub(r"headrace_sdk\.\w+\.|'(?=\w)|(?<=[\w\]])'", "", text)


def _text(name: str, value: Any, written: dict[str, str]) -> Iterator[str]:
    """What is said of a name: its docstring, then its members and methods as a list."""
    if not isinstance(value, type):
        said = inspect.getdoc(value) if inspect.isfunction(value) else written.get(name)
        if not said:
            raise ValueError(f"headrace_sdk.{name} has no docstring")
        yield from _prose(said)
        return
    yield from _prose(inspect.getdoc(value) or "")
    if issubclass(value, enum.Enum):
        yield ""
        for member in value:
            yield from _bullet(member.name, written.get(f"{name}.{member.name}", member.value))
        return
    methods = list(_methods(value))
    if methods:
        yield ""
    for method, function in methods:
        yield from _bullet(method, " ".join((inspect.getdoc(function) or "").split()))


def _prose(docstring: str) -> Iterator[str]:
    """A docstring in Markdown: attributes, arguments and errors become a list."""
    head, *parts = re.split(r"\n+(Attributes|Args|Returns|Raises):\n", docstring)
    yield head.strip()
    for title, part in zip(parts[::2], parts[1::2], strict=True):
        yield ""
        if title == "Returns":
            yield from textwrap.wrap(f"Returns: {' '.join(part.split())}", 118)
            continue
        for entry in re.split(r"\n(?=\w[\w, ]*: )", textwrap.dedent(part)):
            name, _, what = entry.partition(": ")
            yield from _bullet(f"raises {name}" if title == "Raises" else name, " ".join(what.split()))


def _bullet(name: str, what: str) -> Iterator[str]:
    yield from textwrap.wrap(f"- `{name}`: {what}", 120, subsequent_indent="  ", break_on_hyphens=False)


def _written() -> dict[str, str]:
    """The texts that stand under assignments, by name, or by class and name for those in classes."""
    found: dict[str, str] = {}
    for path in sorted(SOURCE.glob("*.py")):
        tree = ast.parse(path.read_text())
        found |= dict(_under_assignments(tree.body, ""))
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found |= dict(_under_assignments(node.body, f"{node.name}."))
    return found


def _under_assignments(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    for before, after in itertools.pairwise(body):
        if not isinstance(before, ast.Assign) or not isinstance(target := before.targets[0], ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            yield prefix + target.id, " ".join(after.value.value.split())
