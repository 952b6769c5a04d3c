"""Contact lists of an account: shown to choose from, made, and looked at.

https://developers.brevo.com/reference/get-lists
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace_destination_brevo.answers import answer_of
from headrace_sdk import ConnectorError, Lists, Request, Response, TransientError, VendorList

A_PAGE = 50


def path(page: str) -> str:
    """Path and query of a page of lists; a page is named by how many lists are before it."""
    return f"/contacts/lists?limit={A_PAGE}&offset={int(page) if page.isdecimal() else 0}"


def read(request: Request, response: Response) -> Lists:
    """The lists in an answer, or the one that was made.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    if request.method == "POST":
        made = answer_of(response, 201).get("id")
        if not _is_id(made):
            raise TransientError("Brevo answered without the id of a new list")
        return Lists(lists=(VendorList(id=str(made), name=json.loads(request.body)["name"]),))
    answer = answer_of(response, 200)
    given, count = answer.get("lists", []), answer.get("count")
    if not isinstance(given, list) or not isinstance(count, int):
        raise TransientError("Brevo answered with something that is no page of lists")
    before = int(request.url.rpartition("offset=")[2])
    seen = before + len(given)
    return Lists(
        lists=tuple(_list(one) for one in given if isinstance(one, Mapping) and _is_id(one.get("id"))),
        next_page=str(seen) if given and seen < count else "",
    )


def problem_of(response: Response) -> str:
    """What hinders the API key, or changes of the list; empty when nothing does."""
    try:
        answer_of(response, 200)
    except ConnectorError as error:
        return error.reason
    return ""


def _list(one: Mapping[str, Any]) -> VendorList:
    size = one.get("uniqueSubscribers")
    known = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    return VendorList(id=str(one["id"]), name=str(one.get("name", "")), size=size if known else None)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
