"""Public names as the reference documentation must show them: one block of code each."""

from __future__ import annotations

import enum
import inspect
import re
import typing
from typing import Any


def public_block(name: str, value: Any) -> str:
    """The code block for a public name: its signature, its public methods, its members."""
    if isinstance(value, str):
        return f'{name} = "{value}"'
    if not isinstance(value, type):
        if callable(value) and not typing.get_origin(value) and hasattr(value, "__name__"):
            return f"def {name}{_signature(value)}"
        return f"{name} = {_plain(str(value))}" if typing.get_args(value) else name
    if issubclass(value, enum.Enum):
        return "\n".join([f"class {name}(StrEnum)", *(f'    {member.name} = "{member.value}"' for member in value)])
    bases = [base.__name__ for base in value.__bases__ if base.__module__.startswith("headrace_sdk")]
    if issubclass(value, Exception) and not bases:
        bases = ["Exception"]
    head = f"class {name}({', '.join(bases)})" if bases else f"class {name}"
    lines = [head, f"    {name}{_made_by(value)}"]
    for method, member in vars(value).items():
        function = member.__func__ if isinstance(member, classmethod) else member
        if not method.startswith("_") and inspect.isfunction(function):
            lines.append(
                f"    {'classmethod ' if isinstance(member, classmethod) else ''}{method}{_signature(function)}"
            )
    return "\n".join(lines)


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
    return _plain(str(inspect.signature(function)))


def _plain(text: str) -> str:
    return re.sub(r"headrace_sdk\.\w+\.", "", text.replace("'", ""))
