"""Names on their way out: they work, and warn, until the version of the plugin API that removes them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecated:
    """A name that `headrace_sdk` exported and will not for much longer.

    Attributes:
        value: "package.module:name" of what it stands for.
        instead: What to use in its place, as code.
        since: Version of the plugin API that deprecated it.
        removed_in: Version of the plugin API that removes it.
    """

    value: str
    instead: str
    since: str
    removed_in: str


DEPRECATED: Mapping[str, Deprecated] = {}
"""By name. A name is moved here from `__all__`, and stays for at least one minor version."""


def lookup(name: str, deprecated: Mapping[str, Deprecated] = DEPRECATED) -> Any:
    """What a deprecated name of `headrace_sdk` stands for, with a DeprecationWarning where it is used.

    Raises:
        AttributeError: There is no such name.
    """
    found = deprecated.get(name)
    if found is None:
        raise AttributeError(f"module 'headrace_sdk' has no attribute {name!r}")
    warnings.warn(
        f"headrace_sdk.{name} goes with plugin API {found.removed_in}: use {found.instead}",
        DeprecationWarning,
        stacklevel=3,
    )
    module, _, attribute = found.value.partition(":")
    return getattr(importlib.import_module(module), attribute)
