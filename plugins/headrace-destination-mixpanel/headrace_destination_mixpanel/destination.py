"""The Mixpanel destination: events by /import, profiles of people and groups, audiences as a list property.

https://docs.mixpanel.com/reference/ingestion-api
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from headrace_destination_mixpanel import answers, events, profiles
from headrace_destination_mixpanel.fields import FIELDS
from headrace_destination_mixpanel.settings import MixpanelSettings
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    DeleteBatch,
    Destination,
    EventBatch,
    EventItem,
    Idempotency,
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

MAX_ITEMS = 2_000
"""Most events, updates of people, and (all but one) distinct ids to be deleted in a request."""
MAX_GROUPS = 200
IMPORT, ENGAGE, GROUPS, DELETIONS = "/import", "/engage", "/groups", "/api/app/data-deletions/v3.0/"
_LIMITS = {IMPORT: MAX_ITEMS, ENGAGE: MAX_ITEMS, GROUPS: MAX_GROUPS}

MANIFEST = Manifest(
    name="mixpanel",
    title="Mixpanel",
    description="Sends events, profiles of people and groups, and audiences as a profile property.",
    factory="headrace_destination_mixpanel.destination:Mixpanel",
    settings=MixpanelSettings,
    capabilities=frozenset(
        {
            Capability.FORWARDING,
            Capability.EVENT_SYNC,
            Capability.LIST_SYNC,
            Capability.DELETION,
            Capability.CHECK,
        }
    ),
    list_setting="audience",
    fields=FIELDS,
    batch=BatchPolicy(max_items=MAX_ITEMS, max_bytes=2_000_000, max_wait_s=1.0),
    limits=(RateLimit(count=15, per_s=1.0),),
    concurrency=10,
    idempotency=Idempotency.KEY,
    auth=Basic(username="service_account", password="service_account_secret"),  # noqa: S106 - names of settings
    not_deleted="Without the setting gdpr_token the person's events: only the profile is deleted then.",
)


class Mixpanel(Destination[MixpanelSettings]):
    """Sends events and profiles to a project of Mixpanel."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Up to 2,000 events, 2,000 profiles or 200 groups a request."""
        waiting: dict[str, tuple[list[int], list[dict[str, Any]]]] = {path: ([], []) for path in _LIMITS}
        for place, event in enumerate(batch.events):
            path, made, reason, remarks = self._one(event, batch.now_us)
            if joins := events.joined_of(event, self.settings):
                # An item with two requests is alone in both.
                yield self._post(IMPORT, (place,), [joins])
                if made:
                    yield self._post(path, (place,), [made])
                continue
            if reason:
                yield Skip(item=place, reason=reason)
                continue
            yield from (Note(item=place, reason=remark) for remark in remarks)
            items, records = waiting[path]
            items.append(place)
            records.append(made)
            if len(items) == _LIMITS[path]:
                yield self._post(path, items, records)
                waiting[path] = ([], [])
        for path, (items, records) in waiting.items():
            if items:
                yield self._post(path, items, records)

    def rows(self, member: Member) -> Sequence[Row]:
        """A row per user id of the person."""
        return profiles.rows_of(member.fields, self.settings)

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """The audience is added to the list property of each."""
        yield from self._change(batch, joins=True)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """The audience is taken out of the list property of each."""
        yield from self._change(batch, joins=False)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """With a GDPR token everything of the people, without one their profiles."""
        items: list[int] = []
        ids: list[str] = []
        for place, subject in enumerate(batch.subjects):
            found = profiles.ids_of(subject, self.settings)
            if not found:
                yield Skip(item=place, reason="no user id or anonymous id by which Mixpanel knows people")
            elif self.settings.gdpr_token is None:
                # A request per person: an answer names updates, of which a person with several ids has several.
                yield self._post(ENGAGE, (place,), [profiles.deletion(one, self.settings) for one in found])
            else:
                if items and len(ids) + len(found) >= MAX_ITEMS:
                    yield self._task(items, ids)
                    items, ids = [], []
                items.append(place)
                ids += found
        if items:
            yield self._task(items, ids)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Mixpanel's answer means, see `answers`."""
        path = urlsplit(request.url).path
        if path.endswith(IMPORT):
            return answers.read_import(request, response)
        if path.endswith(DELETIONS):
            return answers.read_deletion(request, response)
        return answers.read_profiles(request, response)

    def check(self) -> Iterable[Check]:
        """Whether the service account gets in. Nothing asks whether a project token is right without sending."""
        settings = self.settings
        if settings.service_account:
            url = f"{settings.ingestion_url}/lookup-tables?project_id={settings.project_id}"
            yield Check(title="The service account works", request=Request(method="GET", url=url, items=()))

    def read_check(self, check: Check, response: Response) -> str:
        """What Mixpanel says to the service account."""
        return answers.problem_of(response)

    def _one(self, event: EventItem, now_us: int) -> tuple[str, dict[str, Any], str, list[str]]:
        """Where an event goes, what is sent of it, the reason why nothing is, and what is remarkable."""
        if event.kind == "identify":
            return ENGAGE, *profiles.profile_of(event, self.settings), []
        if event.kind == "group":
            return GROUPS, *profiles.group_of(event, self.settings), []
        if event.kind == "alias":
            return IMPORT, *events.merge_of(event, self.settings), []
        name, reason = events.name_of(event, self.settings)
        if reason:
            return IMPORT, {}, reason, []
        return IMPORT, *events.import_of(event, name, self.settings, now_us)

    def _change(self, batch: MemberBatch, *, joins: bool) -> Iterator[Request]:
        for start in range(0, len(batch.rows), MAX_ITEMS):
            part = batch.rows[start : start + MAX_ITEMS]
            updates = [profiles.membership(row.data, self.settings, joins=joins) for row in part]
            yield self._post(ENGAGE, range(start, start + len(part)), updates)

    def _task(self, items: list[int], ids: list[str]) -> Request:
        settings = self.settings
        token = settings.gdpr_token.get_secret_value() if settings.gdpr_token else ""
        return Request(
            method="POST",
            url=f"{settings.application_url}{DELETIONS}?token={settings.project_token}",
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
            body=_json({"compliance_type": "GDPR", "distinct_ids": ids}),
            items=tuple(items),
        )

    def _post(self, path: str, items: Iterable[int], records: Sequence[dict[str, Any]]) -> Request:
        settings = self.settings
        query, headers, secrets = "strict=1", {"Content-Type": "application/json"}, []
        if path != IMPORT:
            query += "&verbose=1" + ("&ip=0" if path == ENGAGE else "")
        elif settings.service_account:
            query += f"&project_id={settings.project_id}"
        else:
            pair = base64.b64encode(f"{settings.project_token}:".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
            secrets.append(pair)
        return Request(
            method="POST",
            url=f"{settings.ingestion_url}{path}?{query}",
            headers=headers,
            body=_json(records),
            items=tuple(items),
            secrets=tuple(secrets),
        )


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
