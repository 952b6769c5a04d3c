"""Klaviyo's lists: shown to choose from, made, and looked at.

https://developers.klaviyo.com/en/reference/get_lists
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from headrace_destination_klaviyo import answers
from headrace_sdk import Lists, Response, TransientError, VendorList

PATH = "/api/lists"


def page_path(page: str) -> str:
    """Path and query of a page; Klaviyo gives ten a page at most."""
    cursor = f"&page%5Bcursor%5D={quote(page, safe='')}" if page else ""
    return f"{PATH}?fields%5Blist%5D=name{cursor}"


def new(name: str) -> dict[str, Any]:
    """The body that makes a list."""
    return {"data": {"type": "list", "attributes": {"name": name}}}


def read(response: Response) -> Lists:
    """The lists of a page, or the one that was made.

    Raises:
        ConnectorError: Klaviyo answered with an error, or with something that is no list.
    """
    answer = answers.accepted(response)
    data = answer.get("data")
    given = data if isinstance(data, list) else [data]
    found = tuple(_list_of(one) for one in given if isinstance(one, Mapping) and isinstance(one.get("id"), str))
    if not isinstance(data, list) and not found:
        raise TransientError("Klaviyo answered with something that is no list")
    return Lists(lists=found, next_page=_next(answer.get("links")))


def _list_of(one: Mapping[str, Any]) -> VendorList:
    attributes = one.get("attributes")
    name = attributes.get("name") if isinstance(attributes, Mapping) else None
    return VendorList(id=one["id"], name=name if isinstance(name, str) and name else one["id"])


def _next(links: Any) -> str:
    """The cursor in the address of the next page."""
    following = links.get("next") if isinstance(links, Mapping) else None
    if not isinstance(following, str):
        return ""
    try:
        return parse_qs(urlsplit(following).query).get("page[cursor]", [""])[0]
    except ValueError:
        return ""
