"""What answers of the Google Sheets API mean.

https://developers.google.com/workspace/sheets/api/limits
https://docs.cloud.google.com/apis/design/errors
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from headrace_destination_google_sheets.sheet import KEY_HEADER
from headrace_sdk import (
    AuthError,
    ConfigError,
    Delivered,
    Lists,
    Outcomes,
    RateLimited,
    RecordRejected,
    Request,
    Response,
    Retry,
    TransientError,
    VendorList,
)

_NO_TAB = re.compile(r"No grid with id|No sheet with id|sheetId", re.IGNORECASE)
_FULL = re.compile(r"above the limit of [\d,]+ cells", re.IGNORECASE)


def read(request: Request, response: Response) -> Outcomes:
    """What became of the rows of a request. Google carries out all of it or nothing.

    Raises:
        AuthError, ConfigError, RateLimited, TransientError: By what is to be done.
    """
    if response.status == 400 and not _is_the_settings(response):
        # Some row is at fault, and which one Google says only by its place among the changes.
        return Outcomes.refused(request, _said(response))
    _raise_unless_accepted(response)
    asked = json.loads(request.body)["requests"]
    replies = response.json_object().get("replies")
    if not isinstance(replies, list) or len(replies) != len(asked) or not all(isinstance(one, dict) for one in replies):
        return Outcomes.every(request, Retry(reason="Google answered 200 with something that is no answer"))
    _check_header(replies)
    return Outcomes.every(request, Delivered())


def read_check(response: Response) -> str:
    """What there is to do about a tab; empty when it is as it should be."""
    try:
        _raise_unless_accepted(response)
    except (AuthError, ConfigError, RateLimited, TransientError, RecordRejected) as error:
        return error.reason
    ranges = response.json_object().get("valueRanges")
    try:
        first = ranges[0]["valueRange"]["values"][0][0]  # type: ignore[index]  # whatever is missing is caught
    except (IndexError, KeyError, TypeError):
        first = None
    if first == KEY_HEADER:
        return ""
    return f"the first cell of the tab must say {KEY_HEADER}: make the tab as a new list, or write a header into it"


def read_lists(response: Response) -> Lists:
    """The tabs in an answer to the question for them, or the one that was made."""
    _raise_unless_accepted(response)
    document = response.json_object()
    replies = document.get("replies")
    found: Sequence[Any] = document.get("sheets") or []
    if isinstance(replies, list):
        found = [reply["addSheet"] for reply in replies if isinstance(reply, dict) and "addSheet" in reply]
    lists = []
    for one in found:
        properties = one.get("properties") if isinstance(one, dict) else None
        if not isinstance(properties, dict) or not isinstance(properties.get("title"), str):
            raise TransientError("Google answered with something that is no tab")
        lists.append(VendorList(id=str(properties.get("sheetId", 0)), name=properties["title"]))
    return Lists(lists=tuple(lists))


def _check_header(replies: Sequence[Mapping[str, Any]]) -> None:
    """Rows to be removed are made duplicates of the header: without one, the first of them stays.

    Raises:
        ConfigError: Fewer rows went than were found.
    """
    found = sum(_number(one.get("findReplace"), "rowsChanged") for one in replies)
    gone = sum(_number(one.get("deleteDuplicates"), "duplicatesRemovedCount") for one in replies)
    if gone < found:
        raise ConfigError(
            f"the tab has lost its header, and a row stayed with {KEY_HEADER} in place of its key: "
            "delete that row and write the header again",
            "sheet_id",
        )


def _number(reply: Any, member: str) -> int:
    value = reply.get(member, 0) if isinstance(reply, dict) else 0
    return value if isinstance(value, int) else 0


def _raise_unless_accepted(response: Response) -> None:
    status, said = response.status, _said(response)
    if status == 200:
        return
    if status == 401:
        raise AuthError(f"{said}: check the key of the service account")
    if status == 403:
        raise AuthError(
            f"{said}: share the spreadsheet with the service account as an editor, and enable the Sheets API"
        )
    if status == 404:
        raise ConfigError(f"{said}: there is no such spreadsheet", "spreadsheet_id")
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if status == 408 or status >= 500:
        raise TransientError(said, response.retry_after_s())
    if _is_the_settings(response):
        full = _FULL.search(_message(response))
        raise ConfigError(
            f"{said}: the spreadsheet is full" if full else f"{said}: there is no such tab",
            "spreadsheet_id" if full else "sheet_id",
        )
    raise RecordRejected(said)


def _is_the_settings(response: Response) -> bool:
    """Whether no row whatever could be written."""
    message = _message(response)
    return response.status != 400 or bool(_NO_TAB.search(message) or _FULL.search(message))


def _message(response: Response) -> str:
    error = response.json_object().get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else ""


def _said(response: Response) -> str:
    """The status and its name. Google's message may quote a value."""
    error = response.json_object().get("error")
    name = error.get("status") if isinstance(error, dict) else None
    known = isinstance(name, str) and re.fullmatch(r"[A-Z_]{1,40}", name)
    return f"Google answered {response.status} ({name})" if known else f"Google answered {response.status}"
