"""The TikTok audiences destination: keeps an audience segment equal to an audience.

https://business-api.tiktok.com/portal/docs?id=1739940585975809 (mappings),
https://business-api.tiktok.com/portal/docs?id=1739940583739393 (making one),
https://business-api.tiktok.com/portal/docs?id=1739940506015746 (listing them)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from headrace_destination_tiktok_audience import answers, people
from headrace_destination_tiktok_audience.settings import VERSION_ENDS, TikTokAudienceSettings
from headrace_sdk import (
    ApiVersions,
    BatchPolicy,
    Built,
    Capability,
    Check,
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
from headrace_sdk.auth import ApiKey

MAX_ROWS = 1_000
_ADD, _DELETE = "add", "delete"
_PAGE = 100
_LONGEST_NAME = 128

MANIFEST = Manifest(
    name="tiktok-audience",
    title="TikTok audiences",
    description="Keeps an audience segment at TikTok equal to an audience. Identifiers are sent as SHA-256.",
    factory="headrace_destination_tiktok_audience.destination:TikTokAudience",
    settings=TikTokAudienceSettings,
    capabilities=frozenset({Capability.LIST_SYNC, Capability.DELETION, Capability.LISTS, Capability.CHECK}),
    list_setting="audience_id",
    fields=people.FIELDS,
    batch=BatchPolicy(max_items=MAX_ROWS, max_bytes=1_000_000, max_wait_s=5.0),
    limits=(RateLimit(count=10, per_s=1.0),),
    concurrency=2,
    timeout_s=60.0,
    idempotency=Idempotency.NATURAL,
    rows_match_people=True,
    auth=ApiKey(setting="access_token", header="Access-Token"),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    removal_keys=(("email",), ("phone",), ("idfa",), ("gaid",)),
    minimum_list_size=1_000,
    not_deleted="Reports in TikTok Ads Manager; the person is taken off the audience alone.",
)


class TikTokAudience(Destination[TikTokAudienceSettings]):
    """Keeps an audience segment at TikTok equal to an audience."""

    manifest = MANIFEST

    def rows(self, member: Member) -> Sequence[Row]:
        """A row per e-mail address, phone number or device of the person; the first of each share one."""
        return people.rows_of(member.fields)

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """POST segment/mapping/ with the action add, up to 1,000 rows each."""
        yield from self._change(_ADD, batch)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """POST segment/mapping/ with the action delete and the rows that were added, up to 1,000 each."""
        yield from self._change(_DELETE, batch)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """Takes people off the audience by each of their identifiers."""
        items: list[int] = []
        rows: list[Mapping[str, str]] = []
        for place, subject in enumerate(batch.subjects):
            found = people.rows_of_subject(subject)
            if not found:
                yield Skip(item=place, reason="no identifier by which TikTok knows people")
                continue
            if items and len(rows) + len(found) > MAX_ROWS:
                yield self._mapping(_DELETE, items, rows)
                items, rows = [], []
            items.append(place)
            rows += found
        if items:
            yield self._mapping(_DELETE, items, rows)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What TikTok's answer means, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """The audience's details."""
        ids = quote(json.dumps([self.settings.audience_id], separators=(",", ":")), safe="")
        url = f"{self._url('dmp/custom_audience/get')}?{self._account()}&custom_audience_ids={ids}"
        yield Check(title="May see the audience", request=Request(method="GET", url=url, items=()))

    def read_check(self, check: Check, response: Response) -> str:
        """What TikTok says to it."""
        return answers.sentence(response, self.settings.audience_id)

    def lists(self, page: str = "") -> Request:
        """GET dmp/custom_audience/list/, 100 a page."""
        number = int(page) if page.isascii() and page.isdigit() else 1
        url = f"{self._url('dmp/custom_audience/list')}?{self._account()}&page={number}&page_size={_PAGE}"
        return Request(method="GET", url=url, items=())

    def create_list(self, name: str) -> Request:
        """POST segment/audience/ with the action create."""
        body = {
            "action": "create",
            "advertiser_id": self.settings.advertiser_id,
            "custom_audience_name": name.strip()[:_LONGEST_NAME],
        }
        return self._post("segment/audience", (), body)

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The audiences of a page, or the one that was made."""
        data = answers.data_of(response)
        if request.method == "POST":
            made = _list_of({**data, "name": json.loads(request.body)["custom_audience_name"]})
            if made is None:
                raise TransientError("TikTok answered with something that is no audience")
            return Lists(lists=(made,))
        given, info = data.get("list"), data.get("page_info")
        if not isinstance(given, list):
            raise TransientError("TikTok answered with something that is no list of audiences")
        lists = tuple(found for one in given if isinstance(one, Mapping) and (found := _list_of(one)))
        number, pages = (info.get("page"), info.get("total_page")) if isinstance(info, Mapping) else (None, None)
        more = isinstance(number, int) and isinstance(pages, int) and number < pages and bool(given)
        return Lists(lists=lists, next_page=str(number + 1) if more and isinstance(number, int) else "")

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as TikTok compares it, and its SHA-256."""
        return people.normalise(field, value)

    def _change(self, action: str, batch: MemberBatch) -> Iterable[Built]:
        for start in range(0, len(batch.rows), MAX_ROWS):
            part = batch.rows[start : start + MAX_ROWS]
            yield self._mapping(action, range(start, start + len(part)), [row.data for row in part])

    def _mapping(self, action: str, items: Iterable[int], rows: Sequence[Mapping[str, str]]) -> Request:
        """A request with the columns that any of its rows has; an empty object where a row has none."""
        schema = [column for column in people.SCHEMA if any(column in row for row in rows)]
        audiences = [self.settings.audience_id]
        body = {
            "advertiser_ids": [self.settings.advertiser_id],
            "action": action,
            "id_schema": schema,
            "batch_data": [
                [{"id": row[column], "audience_ids": audiences} if column in row else {} for column in schema]
                for row in rows
            ],
        }
        return self._post("segment/mapping", tuple(items), body)

    def _post(self, path: str, items: tuple[int, ...], body: Mapping[str, Any]) -> Request:
        return Request(
            method="POST",
            url=self._url(path),
            headers={"Content-Type": "application/json"},
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
            items=items,
        )

    def _url(self, path: str) -> str:
        return f"{self.settings.base_url}/open_api/{self.settings.api_version}/{path}/"

    def _account(self) -> str:
        return f"advertiser_id={self.settings.advertiser_id}"


def _list_of(one: Mapping[str, Any]) -> VendorList | None:
    """An audience in an answer; None when it has no id."""
    audience_id, size = one.get("audience_id"), one.get("cover_num")
    if not isinstance(audience_id, str | int) or isinstance(audience_id, bool) or not str(audience_id):
        return None
    known = size if isinstance(size, int) and not isinstance(size, bool) else None
    return VendorList(id=str(audience_id), name=str(one.get("name") or audience_id), size=known)
