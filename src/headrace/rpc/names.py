"""Resource names: "workspaces/{workspace}/sources/{source}". The workspace is in each, so no call can forget it."""

from __future__ import annotations

import re
import unicodedata
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

ID_RULE = "1 to 63 lower-case letters, digits and dashes, no dash first"
LONGEST_DISPLAY_NAME = 200

_CHOSEN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Wider than what may be chosen: ids that begin with a dash were allowed once.
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
    """An id that a user chose, by ID_RULE: one that begins with a dash would look like an option to commands.

    Returns:
        The id.

    Raises:
        ApiError: INVALID_ARGUMENT on `field`.
    """
    if not is_chosen_id(value):
        raise invalid_argument(field, f"must be {ID_RULE}")
    return value


def is_chosen_id(value: str) -> bool:
    """Whether something can be made by this id; see ID_RULE."""
    return _CHOSEN.fullmatch(value) is not None


def display_name(field: str, value: str) -> str:
    """A name for people that a user chose, without the space around it.

    Joiners, which some scripts and emoji are written with, are no control characters; those that turn the direction of
    writing are, because what follows a name would be turned too.

    Raises:
        ApiError: INVALID_ARGUMENT on `field`.
    """
    text = value.strip()
    if not text or len(text) > LONGEST_DISPLAY_NAME or any(map(_is_control, text)):
        raise invalid_argument(
            field, f"must be 1 to {LONGEST_DISPLAY_NAME} characters, none of them a control character"
        )
    return text


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNING


_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    literals = _PLACEHOLDER.split(pattern)
    workspace_first = pattern.startswith("workspaces/{")
    expression = re.escape(literals[0])
    for index, literal in enumerate(literals[1:]):
        expression += f"({_ID.pattern})" if index == 0 and workspace_first else _SEGMENT
        expression += re.escape(literal)
    return re.compile(expression)
