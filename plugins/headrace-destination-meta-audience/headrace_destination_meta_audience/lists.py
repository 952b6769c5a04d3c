"""Audiences of an ad account: shown to choose from, made, and looked at.

https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/custom-audience
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from headrace_destination_meta_audience.answers import answer_of
from headrace_sdk import ConnectorError, Lists, Request, Response, TransientError, VendorList

_FIELDS = "id,name,subtype,approximate_count_lower_bound"
_A_PAGE = 100
_CUSTOMER_LIST = "CUSTOM"
_FLAGGED = 471


def path(account: str, page: str) -> str:
    """Path and query of a page of an account's audiences.

    Args:
        account: "act_" and the id of the account.
        page: Cursor from the page before; empty for the first.
    """
    after = f"&after={quote(page, safe='')}" if page else ""
    return f"{account}/customaudiences?fields={_FIELDS}&limit={_A_PAGE}{after}"


def new(name: str) -> dict[str, Any]:
    """The body that makes an audience for customers' data."""
    return {"name": name, "subtype": _CUSTOMER_LIST, "customer_file_source": "USER_PROVIDED_ONLY"}


def read(request: Request, response: Response) -> Lists:
    """The audiences in an answer: only those that take customers' data.

    Raises:
        ConnectorError: Meta answered with an error, or with something that is no answer to this request.
    """
    answer = answer_of(response)
    if request.method == "POST":
        made = answer.get("id")
        if not isinstance(made, str) or not made:
            raise TransientError("Meta answered without the id of a new audience")
        return Lists(lists=(VendorList(id=made, name=json.loads(request.body)["name"]),))
    data = answer.get("data")
    if not isinstance(data, list):
        raise TransientError("Meta answered with something that is no list of audiences")
    rows = [row for row in data if isinstance(row, Mapping) and row.get("subtype") == _CUSTOMER_LIST]
    return Lists(lists=tuple(map(_audience, rows)), next_page=_next_page(answer.get("paging")))


def problem_of(response: Response) -> str:
    """What hinders changes of the audience that was asked for; empty when nothing does."""
    try:
        answer = answer_of(response)
    except ConnectorError as error:
        return error.reason
    if answer.get("subtype") != _CUSTOMER_LIST:
        return "The audience is none for customer lists (subtype CUSTOM): choose or make another one."
    status = answer.get("operation_status")
    code = status.get("code") if isinstance(status, Mapping) else None
    if code == _FLAGGED:
        return (
            "Meta has flagged the audience as one that suggests forbidden information: it cannot be used in campaigns."
        )
    allowed = answer.get("permission_for_actions")
    if isinstance(allowed, Mapping) and allowed.get("can_edit") is False:
        return "The token may see the audience but not change it: give its system user a role on the ad account."
    return ""


def _audience(row: Mapping[str, Any]) -> VendorList:
    size = row.get("approximate_count_lower_bound")
    known = isinstance(size, int) and not isinstance(size, bool) and size >= 0  # -1 while Meta counts
    return VendorList(id=str(row.get("id", "")), name=str(row.get("name", "")), size=size if known else None)


def _next_page(paging: Any) -> str:
    """The cursor of the next page: Meta names `next` as long as there is one."""
    if not isinstance(paging, Mapping) or not paging.get("next"):
        return ""
    cursors = paging.get("cursors")
    after = cursors.get("after") if isinstance(cursors, Mapping) else None
    return after if isinstance(after, str) else ""
