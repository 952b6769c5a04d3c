"""The LinkedIn matched audiences destination: keeps a DMP segment of users equal to an audience.

https://learn.microsoft.com/en-us/linkedin/marketing/matched-audiences/create-and-manage-segment-users
https://learn.microsoft.com/en-us/linkedin/marketing/matched-audiences/create-and-manage-segments
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace_destination_linkedin_audience import answers, people
from headrace_destination_linkedin_audience.settings import VERSION_ENDS, LinkedInAudienceSettings
from headrace_sdk import (
    ApiVersions,
    BatchPolicy,
    Built,
    Capability,
    Check,
    ConfigError,
    DeleteBatch,
    Destination,
    Idempotency,
    Lists,
    Manifest,
    Member,
    MemberBatch,
    Normalised,
    Outcomes,
    RateLimit,
    Request,
    Response,
    Row,
    Skip,
    TransientError,
    VendorList,
)
from headrace_sdk.auth import Bearer

MAX_USERS = 5_000
_ADD, _REMOVE = "ADD", "REMOVE"
_PAGE = 100

MANIFEST = Manifest(
    name="linkedin-audience",
    title="LinkedIn matched audiences",
    description="Keeps a DMP segment of users equal to an audience. E-mail addresses are sent as SHA-256.",
    factory="headrace_destination_linkedin_audience.destination:LinkedInAudience",
    settings=LinkedInAudienceSettings,
    capabilities=frozenset({Capability.LIST_SYNC, Capability.DELETION, Capability.LISTS, Capability.CHECK}),
    list_setting="segment_id",
    fields=people.FIELDS,
    batch=BatchPolicy(max_items=MAX_USERS, max_bytes=6_000_000, max_wait_s=5.0),
    limits=(RateLimit(count=600, per_s=60.0),),
    concurrency=2,
    timeout_s=60.0,
    idempotency=Idempotency.NATURAL,
    rows_match_people=True,
    auth=Bearer(setting="access_token"),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    removal_keys=(("email",), ("gaid",), ("first_name", "last_name")),
    minimum_list_size=300,
    not_deleted="Reports in Campaign Manager; the person is taken off the segment alone.",
)


class LinkedInAudience(Destination[LinkedInAudienceSettings]):
    """Keeps a DMP segment of users equal to an audience."""

    manifest = MANIFEST

    def rows(self, member: Member) -> Sequence[Row]:
        """A row per person, with all their ids."""
        return people.rows_of(member.fields)

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """POST to the segment's users with the action ADD, up to 5,000 each."""
        yield from self._change(_ADD, batch)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """POST to the segment's users with the action REMOVE and the rows that were added, up to 5,000 each."""
        yield from self._change(_REMOVE, batch)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """Takes people off the segment by all their ids."""
        items: list[int] = []
        rows: list[Mapping[str, Any]] = []
        for place, subject in enumerate(batch.subjects):
            ids = people.ids_of_subject(subject)
            if ids:
                items.append(place)
                rows.append({"userIds": ids})
            else:
                yield Skip(item=place, reason="no e-mail address or advertising id by which LinkedIn knows people")
        for start in range(0, len(items), MAX_USERS):
            yield self._users(_REMOVE, items[start : start + MAX_USERS], rows[start : start + MAX_USERS])

    def read(self, request: Request, response: Response) -> Outcomes:
        """What LinkedIn's answer means, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """The segment."""
        url = f"{self._segments()}/{self.settings.segment_id}"
        yield Check(
            title="May see the segment, and it takes users",
            request=Request(method="GET", url=url, headers=self._headers(), items=()),
        )

    def read_check(self, check: Check, response: Response) -> str:
        """What LinkedIn says to it."""
        return answers.read_check(response)

    def lists(self, page: str = "") -> Request:
        """GET dmpSegments of the ad account, 100 a page."""
        start = int(page) if page.isascii() and page.isdigit() else 0
        account = f"urn%3Ali%3AsponsoredAccount%3A{self.settings.account_id}"
        url = f"{self._segments()}?q=account&account={account}&start={start}&count={_PAGE}"
        return Request(method="GET", url=url, headers=self._headers(), items=())

    def create_list(self, name: str) -> Request:
        """POST dmpSegments: an empty segment of users.

        Raises:
            ConfigError: The settings do not name the source platform.
        """
        if not self.settings.source_platform:
            raise ConfigError("LinkedIn wants the name that it gave your program", "source_platform")
        body = {
            "accessPolicy": "PRIVATE",
            "account": f"urn:li:sponsoredAccount:{self.settings.account_id}",
            "destinations": [{"destination": "LINKEDIN"}],
            "name": name.strip(),
            "sourcePlatform": self.settings.source_platform,
            "type": "USER",
        }
        headers = {"Content-Type": "application/json", **self._headers()}
        return Request(method="POST", url=self._segments(), headers=headers, body=_json(body), items=())

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The segments of users of a page, or the one that was made, whose id stands in a header."""
        answer = answers.success(response)
        if request.method == "POST":
            made = response.headers.get("x-restli-id") or response.headers.get("x-linkedin-id") or answer.get("id")
            if not isinstance(made, str | int) or not str(made):
                raise TransientError("LinkedIn made a segment without saying its id")
            return Lists(lists=(VendorList(id=str(made), name=json.loads(request.body)["name"]),))
        given, paging = answer.get("elements"), answer.get("paging")
        if not isinstance(given, list):
            raise TransientError("LinkedIn answered with something that is no list of segments")
        lists = tuple(found for one in given if isinstance(one, Mapping) and (found := _list_of(one)))
        start = paging.get("start") if isinstance(paging, Mapping) else None
        more = isinstance(start, int) and len(given) == _PAGE
        return Lists(lists=lists, next_page=str(start + _PAGE) if more and isinstance(start, int) else "")

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as LinkedIn compares it, and as it is sent."""
        return people.normalise(field, value)

    def _change(self, action: str, batch: MemberBatch) -> Iterable[Built]:
        for start in range(0, len(batch.rows), MAX_USERS):
            part = batch.rows[start : start + MAX_USERS]
            yield self._users(action, range(start, start + len(part)), [row.data for row in part])

    def _users(self, action: str, items: Iterable[int], rows: Sequence[Mapping[str, Any]]) -> Request:
        body = {"elements": [{"action": action, **row} for row in rows]}
        return Request(
            method="POST",
            url=f"{self._segments()}/{self.settings.segment_id}/users",
            headers={"Content-Type": "application/json", **self._headers(), "X-RestLi-Method": "BATCH_CREATE"},
            body=_json(body),
            items=tuple(items),
        )

    def _segments(self) -> str:
        return f"{self.settings.base_url}/rest/dmpSegments"

    def _headers(self) -> dict[str, str]:
        return {"LinkedIn-Version": self.settings.api_version, "X-Restli-Protocol-Version": "2.0.0"}


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _list_of(one: Mapping[str, Any]) -> VendorList | None:
    """A segment in an answer; None when it takes no users or has no id."""
    segment_id = one.get("id")
    if one.get("type") != "USER" or not isinstance(segment_id, str | int) or isinstance(segment_id, bool):
        return None
    sizes = [found.get("audienceSize") for found in one.get("destinations") or () if isinstance(found, Mapping)]
    size = next((found for found in sizes if isinstance(found, int) and not isinstance(found, bool)), None)
    return VendorList(id=str(segment_id), name=str(one.get("name") or segment_id), size=size)
