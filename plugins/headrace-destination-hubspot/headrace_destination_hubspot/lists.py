"""HubSpot's static lists of contacts: shown to choose from, and made.

https://developers.hubspot.com/docs/api-reference/2026-03/crm/lists/guide
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_destination_hubspot import answers
from headrace_sdk import Lists, Response, TransientError, VendorList

_CONTACTS = "0-1"
_PAGE = 100


def search(page: str) -> dict[str, Any]:
    """The body that asks for a page of the lists that can be changed."""
    offset = int(page) if page.isascii() and page.isdigit() else 0
    return {"count": _PAGE, "offset": offset, "processingTypes": ["MANUAL"], "additionalProperties": ["hs_list_size"]}


def new(name: str) -> dict[str, Any]:
    """The body that makes a static list of contacts."""
    return {"name": name, "objectTypeId": _CONTACTS, "processingType": "MANUAL"}


def read(response: Response) -> Lists:
    """The lists of contacts in an answer, or the one that was made.

    Raises:
        ConnectorError: HubSpot answered with an error, or with something that is no list.
    """
    answer = answers.accepted(response)
    given = answer.get("lists")
    if isinstance(answer.get("list"), Mapping):
        given = [answer["list"]]
    if not isinstance(given, list):
        raise TransientError("HubSpot answered with something that is no list")
    rows = [one for one in given if isinstance(one, Mapping) and one.get("objectTypeId", _CONTACTS) == _CONTACTS]
    more, offset = answer.get("hasMore") is True, answer.get("offset")
    following = str(offset) if more and isinstance(offset, int) and offset > 0 else ""
    return Lists(lists=tuple(_list_of(one) for one in rows if one.get("listId")), next_page=following)


def _list_of(one: Mapping[str, Any]) -> VendorList:
    further = one.get("additionalProperties")
    size = further.get("hs_list_size") if isinstance(further, Mapping) else None
    known = int(size) if isinstance(size, str) and size.isascii() and size.isdigit() else None
    return VendorList(id=str(one["listId"]), name=str(one.get("name") or one["listId"]), size=known)
