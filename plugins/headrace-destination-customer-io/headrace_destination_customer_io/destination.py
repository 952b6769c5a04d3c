"""The Customer.io destination: people, objects and events by the Track API v2, manual segments by v1.

The Track API and not the Pipelines API, because it names each operation that it refuses, drops repeated events by their
id, and deletes and suppresses people: https://docs.customer.io/integrations/api/track/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from headrace_destination_customer_io import answers, operations, segments
from headrace_destination_customer_io.fields import FIELDS
from headrace_destination_customer_io.settings import CustomerIoSettings
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    ConfigError,
    DeleteBatch,
    Destination,
    EventBatch,
    Idempotency,
    Lists,
    Manifest,
    Member,
    MemberBatch,
    Note,
    Outcomes,
    RateLimit,
    Request,
    Response,
    Row,
    Skip,
)
from headrace_sdk.auth import Basic

MAX_OPERATIONS = 500
MAX_IDS = 1_000
MAX_BYTES = 500_000
LARGEST_OPERATION = 32_000
BATCH, ANONYMOUS, REGION = "/api/v2/batch", "/api/v1/events", "/api/v1/accounts/region"
_SEGMENT = "May change the segment"

MANIFEST = Manifest(
    name="customer-io",
    title="Customer.io",
    description="Sends people, groups and events to Customer.io, and keeps a manual segment equal to an audience.",
    factory="headrace_destination_customer_io.destination:CustomerIo",
    settings=CustomerIoSettings,
    capabilities=frozenset(
        {
            Capability.FORWARDING,
            Capability.EVENT_SYNC,
            Capability.LIST_SYNC,
            Capability.DELETION,
            Capability.LISTS,
            Capability.CHECK,
        }
    ),
    list_setting="segment_id",
    fields=FIELDS,
    batch=BatchPolicy(max_items=MAX_IDS, max_bytes=MAX_BYTES, max_wait_s=1.0),
    limits=(RateLimit(count=100, per_s=1.0),),
    concurrency=10,
    idempotency=Idempotency.KEY,
    auth=Basic(username="site_id", password="api_key"),  # noqa: S106 - names of settings
    any_of=(("user_id", "email", "anonymous_id", "group_id"),),
)


class CustomerIo(Destination[CustomerIoSettings]):
    """Sends people, groups and events to a workspace of Customer.io."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Operations in batches of 500 KB; events of nobody known alone, as v2 has none."""
        items: list[int] = []
        parts: list[bytes] = []
        size = 0
        for place, event in enumerate(batch.events):
            made, reason, remarks = operations.operation_of(event, self.settings, batch.now_us)
            body = _json(made)
            if not reason and len(body) > LARGEST_OPERATION:
                reason = "is larger than 32 KB"
            if reason:
                yield Skip(item=place, reason=reason)
                continue
            yield from (Note(item=place, reason=remark) for remark in remarks)
            if "anonymous_id" in made:
                yield self._post(ANONYMOUS, body, (place,))
                continue
            if len(items) == MAX_OPERATIONS or size + len(body) > MAX_BYTES - len(_json({"batch": []})):
                yield self._batch(items, parts)
                items, parts, size = [], [], 0
            items.append(place)
            parts.append(body)
            size += len(body) + 1
        if items:
            yield self._batch(items, parts)

    def rows(self, member: Member) -> Sequence[Row]:
        """A row per id (or e-mail address) of the person."""
        return segments.rows_of(member.fields, self.settings)

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """Up to 1,000 ids go onto the segment."""
        yield from self._change("add_customers", batch)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """Up to 1,000 ids go off the segment."""
        yield from self._change("remove_customers", batch)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """A request per person, who may be known by several identifiers."""
        for place, subject in enumerate(batch.subjects):
            people = segments.people_of(subject)
            if not people:
                yield Skip(item=place, reason="no user id or e-mail address by which Customer.io knows people")
                continue
            action = self.settings.forget_by
            made = [_json({"type": "person", "identifiers": one, "action": action}) for one in people]
            yield self._batch((place,), made[:MAX_OPERATIONS])

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Customer.io's answer means, see `answers`."""
        is_segment = "/segments/" in urlsplit(request.url).path
        return answers.read(request, response, refused="segment_id" if is_segment else "base_url")

    def check(self) -> Iterable[Check]:
        """Whether the Track API key works in this region, and whether the segment is a manual one."""
        yield Check(title="The Track API key works", request=self._get(f"{self.settings.track_url}{REGION}"))
        if self.settings.segment_id and self.settings.app_api_key is not None:
            yield Check(title=_SEGMENT, request=self._app(f"/{self.settings.segment_id}"))

    def read_check(self, check: Check, response: Response) -> str:
        """What Customer.io says of the key and the segment."""
        if check.title == _SEGMENT:
            return segments.problem_of(response)
        return answers.region_problem(response, self.settings.region)

    def lists(self, page: str = "") -> Request:
        """All segments: Customer.io gives them in one page.

        Raises:
            ConfigError: No App API key is set.
        """
        return self._app("")

    def create_list(self, name: str) -> Request:
        """A new manual segment.

        Raises:
            ConfigError: No App API key is set.
        """
        return self._app("", _json({"segment": {"name": name, "description": "Kept by Headrace"}}))

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The manual segments, or the one that was made."""
        return segments.read(request, response)

    def _change(self, action: str, batch: MemberBatch) -> Iterable[Built]:
        settings = self.settings
        path = f"/api/v1/segments/{settings.segment_id}/{action}?id_type={settings.identify_by}"
        for start in range(0, len(batch.rows), MAX_IDS):
            part = batch.rows[start : start + MAX_IDS]
            body = _json({"ids": [row.data["id"] for row in part]})
            yield self._post(path, body, range(start, start + len(part)))

    def _batch(self, items: Iterable[int], parts: Sequence[bytes]) -> Request:
        return self._post(BATCH, b'{"batch":[' + b",".join(parts) + b"]}", items)

    def _post(self, path: str, body: bytes, items: Iterable[int]) -> Request:
        return Request(
            method="POST",
            url=f"{self.settings.track_url}{path}",
            headers={"Content-Type": "application/json"},
            body=body,
            items=tuple(items),
        )

    def _get(self, url: str) -> Request:
        return Request(method="GET", url=url, items=())

    def _app(self, path: str, body: bytes = b"") -> Request:
        """A question to the App API, which has a key of its own."""
        key = self.settings.app_api_key
        if key is None:
            raise ConfigError("set the App API key to see segments or to make one", "app_api_key")
        return Request(
            method="POST" if body else "GET",
            url=f"{self.settings.app_url}/v1/segments{path}",
            headers={"Authorization": f"Bearer {key.get_secret_value()}", "Content-Type": "application/json"},
            body=body,
            items=(),
        )


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
