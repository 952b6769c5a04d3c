"""The Meta Custom Audiences destination: keeps a customer list at Meta equal to an audience."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Any

from headrace_destination_meta_audience import answers, lists, people
from headrace_destination_meta_audience.normalise import EMAIL, PHONE, SCHEMA
from headrace_destination_meta_audience.settings import VERSION_ENDS, MetaAudienceSettings
from headrace_sdk import (
    ApiVersions,
    BatchPolicy,
    Bearer,
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
    RecordRejected,
    Request,
    Response,
    Row,
    Skip,
    Subject,
)

MAX_ROWS = 10_000

MANIFEST = Manifest(
    name="meta-audience",
    title="Meta Custom Audiences",
    description="Keeps a customer list at Meta equal to an audience. Identifiers are sent as SHA-256.",
    factory="headrace_destination_meta_audience.destination:MetaAudience",
    settings=MetaAudienceSettings,
    capabilities=frozenset({Capability.LIST_SYNC, Capability.DELETION, Capability.LISTS, Capability.CHECK}),
    list_setting="audience_id",
    fields=people.FIELDS,
    batch=BatchPolicy(max_items=MAX_ROWS, max_bytes=12_000_000, max_wait_s=5.0),
    limits=(RateLimit(count=20, per_s=1.0),),
    concurrency=2,
    timeout_s=60.0,
    idempotency=Idempotency.NATURAL,
    rows_match_people=True,
    auth=Bearer(setting="access_token"),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    any_of=(people.FINDING,),
    removal_keys=people.REMOVAL_KEYS,
    minimum_list_size=100,
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

    def check(self) -> Iterable[Check]:
        """Whether the audience may be read, and whether it takes customers' data: a read alone changes nothing."""
        fields = "?fields=id,subtype,operation_status,permission_for_actions"
        yield Check(
            title="May change the audience", request=self._get(f"{self.settings.audience_id}{fields}", items=())
        )

    def read_check(self, check: Check, response: Response) -> str:
        """What Meta says of the audience."""
        return lists.problem_of(response)

    def lists(self, page: str = "") -> Request:
        """The ad account's audiences, some at a time.

        Raises:
            ConfigError: No ad account is set.
        """
        return self._get(lists.path(self._account(), page), items=())

    def create_list(self, name: str) -> Request:
        """A new audience for customers' data, in the ad account.

        Raises:
            ConfigError: No ad account is set.
        """
        return self._post("POST", f"{self._account()}/customaudiences", lists.new(name), items=())

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The audiences that can be chosen, or the one that was made."""
        return lists.read(request, response)

    def _account(self) -> str:
        account = self.settings.ad_account_id.removeprefix("act_")
        if not account:
            raise ConfigError("set the ad account to see its audiences or to make one", "ad_account_id")
        return f"act_{account}"

    def _request(self, method: str, items: Iterable[int], rows: Sequence[dict[str, str]]) -> Request:
        schema: list[str] = list(SCHEMA)
        data: list[list[Any]] = [[row.get(key, "") for key in SCHEMA] for row in rows]
        if self.settings.limited_data_use and method == "POST":
            schema.append("DATA_PROCESSING_OPTIONS")
            data = [[*cells, ["LDU"]] for cells in data]
        body = {"payload": {"schema": schema, "is_raw": False, "data": data}}
        return self._post(method, f"{self.settings.audience_id}/users", body, items)

    def _post(self, method: str, path: str, body: dict[str, Any], items: Iterable[int]) -> Request:
        proof = self._proof()
        if proof:
            body = {**body, "appsecret_proof": proof}
        return Request(
            method=method,
            url=self._url(path),
            headers={"Content-Type": "application/json"},
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
            items=tuple(items),
            secrets=(proof,) if proof else (),
        )

    def _get(self, path: str, items: Iterable[int]) -> Request:
        # The proof is made for a request with this token alone, and tells nothing of the secret: Meta takes it in the
        # address of what is only read.
        proof = self._proof()
        url = self._url(path) + (f"&appsecret_proof={proof}" if proof else "")
        return Request(method="GET", url=url, items=tuple(items), secrets=(proof,) if proof else ())

    def _url(self, path: str) -> str:
        return f"{self.settings.base_url}/{self.settings.api_version}/{path}"

    def _proof(self) -> str:
        """HMAC of the token with the app's secret; empty without one.

        https://developers.facebook.com/docs/graph-api/guides/secure-requests
        """
        settings = self.settings
        if settings.app_secret is None:
            return ""
        key, token = settings.app_secret.get_secret_value(), settings.access_token.get_secret_value()
        return hmac.new(key.encode(), token.encode(), hashlib.sha256).hexdigest()


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
