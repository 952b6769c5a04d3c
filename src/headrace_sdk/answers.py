"""What vendors' answers have in common: words that can be shown, and what a status means where no body says it."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from headrace_sdk.errors import AuthError, ConfigError, RateLimited, RecordRejected, TransientError
from headrace_sdk.requests import Response

__all__ = ["is_passing", "raise_for_status", "remark", "words"]

# Addresses; telephone numbers, as people write them, and other long numbers; hashes and identifiers of devices.
_PERSONAL = re.compile(
    r"[^\s@'\"=\[(<]+@[^\s@'\",\])>]+|\+?[0-9][0-9 ()./-]{5,}[0-9]|[0-9a-fA-F]{24,}|[0-9a-fA-F-]{32,}"
)
_PASSING = frozenset({408, 423, 425, 429})
_LONGEST = 200


def words(said: Any) -> str:
    """A vendor's words as they may be shown and logged: on one line, cut at 200 characters.

    Addresses, telephone numbers, hashes and other long numbers are replaced by dots: they may be those of people.

    Args:
        said: What stands where words should; anything that is no text gives "".
    """
    return _PERSONAL.sub("...", " ".join(said.split()))[:_LONGEST] if isinstance(said, str) else ""


def remark(said: Any) -> str:
    """A vendor's words in brackets, to be put behind a sentence: " (they said so)"; empty when there are none."""
    shown = words(said)
    return f" ({shown})" if shown else ""


def is_passing(status: int) -> bool:
    """Whether an HTTP status tells of something that passes: a timeout, a lock, too many requests, a failing server."""
    return status in _PASSING or status >= 500


def raise_for_status(response: Response, said: str, *, address: str = "base_url") -> NoReturn:
    """Raise what the status of an answer means that is no success, where the vendor's documentation does not differ.

    Args:
        response: The answer.
        said: How a sentence for the customer begins, such as "Vendor answered 404 (no such list)".
        address: The setting that has the address of the API.

    Raises:
        AuthError: 401 or 403.
        ConfigError: A redirection, 404, 405 or 410: this is not the vendor's API.
        RateLimited: 429.
        TransientError: What passes, and what no API says: 2xx without what it should hold, 400 or 422 without JSON.
        RecordRejected: All others: the request will never be accepted as it is.
    """
    status = response.status
    if status in (401, 403):
        raise AuthError(f"{said}: the credentials are not valid (any more) or lack a permission")
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status in (404, 405, 410) or 300 <= status < 400:
        raise ConfigError(f"{said}: there is no such thing at this address", address)
    if is_passing(status) or status < 300 or (status in (400, 422) and not response.json_object()):
        raise TransientError(said, response.retry_after_s())
    if status == 413:
        raise RecordRejected(f"{said}: the request is too large")
    raise RecordRejected(said)
