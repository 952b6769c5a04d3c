"""Resource names: "workspaces/{workspace}/sources/{source}". The workspace is in each, so no call can forget it."""

from __future__ import annotations

import re
from functools import lru_cache

from headrace.rpc.errors import invalid_argument

WORKSPACE = "workspaces/{workspace}"
API_TOKEN = "workspaces/{workspace}/apiTokens/{token}"  # noqa: S105 - a pattern of names
SOURCE = "workspaces/{workspace}/sources/{source}"
PROFILE = "workspaces/{workspace}/profiles/{profile}"
MERGE = "workspaces/{workspace}/merges/{merge}"
IDENTITY_LINK = "workspaces/{workspace}/identityLinks/{link}"
IDENTITY_RULES = "workspaces/{workspace}/identityRules"
REBUILD = "workspaces/{workspace}/rebuilds/{rebuild}"
COMPUTED_TRAIT = "workspaces/{workspace}/computedTraits/{computed_trait}"
DELETION = "workspaces/{workspace}/deletions/{deletion}"
AUDIENCE = "workspaces/{workspace}/audiences/{audience}"
DESTINATION = "workspaces/{workspace}/destinations/{destination}"
SYNC = "workspaces/{workspace}/syncs/{sync}"

_ID = re.compile(r"[a-z0-9-]{1,63}")
_WORKSPACE_OF = re.compile(r"workspaces/([a-z0-9-]{1,63})(?:/.*)?", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{\w+\}")
# Ids made by us may be longer and of more kinds of letters than those chosen by users.
_SEGMENT = r"([A-Za-z0-9_.~-]{1,128})"


def workspace_of(name: str, field: str = "name") -> str:
    """The workspace id in a resource name or parent.

    Raises:
        ApiError: INVALID_ARGUMENT on `field`, when the name does not begin with a workspace.
    """
    match = _WORKSPACE_OF.fullmatch(name)
    if match is None:
        raise invalid_argument(field, "must begin with workspaces/{workspace}")
    return match[1]


def parse(pattern: str, name: str, field: str = "name") -> tuple[str, ...]:
    """The ids in a resource name.

    Args:
        pattern: Such as "workspaces/{workspace}/sources/{source}".
        name: The name as the caller gave it.
        field: Field that holds it, for the error.

    Returns:
        One id per placeholder.

    Raises:
        ApiError: INVALID_ARGUMENT on `field`, when the name does not have this form.
    """
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        raise invalid_argument(field, f"must have the form {pattern}")
    return match.groups()


def format(pattern: str, *ids: str) -> str:
    """The resource name with these ids, the reverse of `parse`."""
    parts = iter(ids)
    name = _PLACEHOLDER.sub(lambda _: next(parts), pattern)
    assert next(parts, None) is None, "more ids than placeholders"
    return name


def check_id(field: str, value: str) -> str:
    """An id that a user chose: 1 to 63 lower-case letters, digits and dashes.

    Returns:
        The id.

    Raises:
        ApiError: INVALID_ARGUMENT on `field`.
    """
    if _ID.fullmatch(value) is None:
        raise invalid_argument(field, "must be 1 to 63 lower-case letters, digits and dashes")
    return value


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    literals = _PLACEHOLDER.split(pattern)
    workspace_first = pattern.startswith("workspaces/{")
    expression = re.escape(literals[0])
    for index, literal in enumerate(literals[1:]):
        expression += f"({_ID.pattern})" if index == 0 and workspace_first else _SEGMENT
        expression += re.escape(literal)
    return re.compile(expression)
