"""The Meta Custom Audiences destination: keeps a customer list at Meta equal to an audience."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from headrace_destination_meta_audience import answers, people
from headrace_destination_meta_audience.normalise import EMAIL, PHONE, SCHEMA
from headrace_destination_meta_audience.settings import VERSION_ENDS, MetaAudienceSettings
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    DeleteBatch,
    Destination,
    Idempotency,
    Manifest,
    Member,
    MemberBatch,
    Normalised,
    Note,
    Outcomes,
    RateLimit,
    RecordRejected,
    Request,
    Response,
    Row,
    Skip,
    Subject,
)

MAX_ROWS = 10_000
_WARN_BEFORE = timedelta(days=60)

MANIFEST = Manifest(
    name="meta-audience",
    title="Meta Custom Audiences",
    description="Keeps a customer list at Meta equal to an audience. Identifiers are sent as SHA-256.",
    factory="headrace_destination_meta_audience.destination:MetaAudience",
    settings=MetaAudienceSettings,
    capabilities=frozenset({Capability.LIST_SYNC, Capability.DELETION}),
    fields=people.FIELDS,
    batch=BatchPolicy(max_items=MAX_ROWS, max_bytes=12_000_000, max_wait_s=5.0),
    limits=(RateLimit(count=20, per_s=1.0),),
    concurrency=2,
    timeout_s=60.0,
    idempotency=Idempotency.NATURAL,
    rows_match_people=True,
)


class MetaAudience(Destination[MetaAudienceSettings]):
    """Keeps a customer list at Meta equal to an audience."""

    manifest = MANIFEST

    def rows(self, member: Member) -> Sequence[Row]:
        """A row per e-mail address, phone number or device of the person, with the rest of what is known in each."""
        return people.rows_of(member.fields)

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """POST to the list's users, up to 10,000 rows each."""
        yield from self._change("POST", batch)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """DELETE at the list's users, with the rows in the body, up to 10,000 each."""
        yield from self._change("DELETE", batch)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """Takes people off the list by each of their e-mail addresses and phone numbers."""
        items: list[int] = []
        rows: list[dict[str, str]] = []
        for place, subject in enumerate(batch.subjects):
            found = _rows_of_subject(subject)
            if not found:
                yield Skip(item=place, reason="no e-mail address or phone number by which Meta knows people")
                continue
            if items and len(rows) + len(found) > MAX_ROWS:
                yield self._request("DELETE", items, rows)
                items, rows = [], []
            items.append(place)
            rows += found
        if items:
            yield self._request("DELETE", items, rows)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Meta's answer means, see `answers`."""
        return answers.read(request, response)

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as Meta compares it, and its SHA-256."""
        return people.normalise(field, value)

    def _change(self, method: str, batch: MemberBatch) -> Iterable[Built]:
        for start in range(0, len(batch.rows), MAX_ROWS):
            part = batch.rows[start : start + MAX_ROWS]
            yield self._request(method, range(start, start + len(part)), [row.data for row in part])
        remark = _end_of(self.settings.api_version, batch.now_us)
        if remark and batch.rows:
            yield Note(item=0, reason=remark)

    def _request(self, method: str, items: Iterable[int], rows: Sequence[dict[str, str]]) -> Request:
        settings = self.settings
        schema: list[str] = list(SCHEMA)
        data: list[list[Any]] = [[row.get(key, "") for key in SCHEMA] for row in rows]
        if settings.limited_data_use and method == "POST":
            schema.append("DATA_PROCESSING_OPTIONS")
            data = [[*cells, ["LDU"]] for cells in data]
        body: dict[str, Any] = {"payload": {"schema": schema, "is_raw": False, "data": data}}
        token = settings.access_token.get_secret_value()
        proof = ""
        if settings.app_secret is not None:
            key = settings.app_secret.get_secret_value().encode()
            proof = body["appsecret_proof"] = hmac.new(key, token.encode(), hashlib.sha256).hexdigest()
        return Request(
            method=method,
            url=f"{settings.base_url}/{settings.api_version}/{settings.audience_id}/users",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            body=msgspec.json.encode(body),
            items=tuple(items),
            secrets=(proof,) if proof else (),
        )


def _rows_of_subject(subject: Subject) -> list[dict[str, str]]:
    """One row per identifier: a list may hold the person under any of them."""
    found = []
    for namespace, key in (("email", EMAIL), ("phone", PHONE)):
        for value in subject.identifiers.get(namespace, ()):
            try:
                found.append({key.name: people.normalise(namespace, value).sent})
            except RecordRejected:
                continue  # it was on no list: rows() refuses it in the same way
    return found


def _end_of(version: str, now_us: int) -> str:
    """What to say about the end of an API version; empty when there is nothing to say."""
    end = VERSION_ENDS.get(version)
    if end is None:
        return ""
    left = datetime.fromisoformat(end).replace(tzinfo=UTC) - datetime.fromtimestamp(now_us / 1e6, UTC)
    if left <= timedelta(0):
        return f"Meta stopped answering Marketing API {version} on {end}: set a newer API version"
    return f"Meta stops answering Marketing API {version} on {end}" if left < _WARN_BEFORE else ""
