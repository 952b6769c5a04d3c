"""The HubSpot destination: contacts, a static list, custom events, and deletion.

https://developers.hubspot.com/docs/api-reference/latest/overview
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace_destination_hubspot import answers, contacts, events, lists
from headrace_destination_hubspot.fields import FIELDS
from headrace_destination_hubspot.settings import VERSION_ENDS, HubSpotSettings
from headrace_sdk import (
    ApiVersions,
    BatchPolicy,
    Bearer,
    Built,
    Capability,
    Check,
    DeleteBatch,
    Destination,
    EventBatch,
    Idempotency,
    Job,
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
)

MANIFEST = Manifest(
    name="hubspot",
    title="HubSpot",
    description="Contacts, a static list kept equal to an audience, custom events, and deletion.",
    factory="headrace_destination_hubspot.destination:HubSpot",
    settings=HubSpotSettings,
    capabilities=frozenset(
        {
            Capability.LIST_SYNC,
            Capability.EVENT_SYNC,
            Capability.FORWARDING,
            Capability.DELETION,
            Capability.LISTS,
            Capability.CHECK,
            Capability.JOBS,
        }
    ),
    list_setting="list_id",
    fields=FIELDS,
    batch=BatchPolicy(max_items=events.MOST, max_bytes=3_000_000, max_wait_s=1.0),
    limits=(RateLimit(count=100, per_s=10.0),),
    timeout_s=60.0,
    idempotency=Idempotency.KEY,  # of events: the uuid
    rows_match_people=True,
    auth=Bearer(setting="access_token"),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    any_of=(("email", "utk"),),
    removal_keys=(("email",),),
    not_deleted="Contacts that HubSpot knows under none of the person's e-mail addresses.",
)


class HubSpot(Destination[HubSpotSettings]):
    """Brings contacts up to date, keeps a static list of them, and sends custom events."""

    manifest = MANIFEST

    def rows(self, member: Member) -> Sequence[Row]:
        """One row: the contact. Its key goes by the address alone, so that a new name does not touch the list."""
        email = contacts.email_of(member.fields)
        return [Row(key=Row.of(email).key, data={"email": email, "properties": contacts.properties_of(member.fields)})]

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """An upsert of the contacts, whose ids `poll` puts onto the list."""
        yield from self._change("batch/upsert", answers.ADD, batch)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """A look-up of the contacts' ids, which `poll` takes off the list."""
        yield from self._change("batch/read", "", batch)

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Contacts of identify events in batches, and custom events in batches."""
        known: list[contacts.Contact] = []
        happened: list[tuple[int, dict[str, Any]]] = []
        for place, event in enumerate(batch.events):
            name, reason = events.name_of(event, self.settings.event_names, self.settings.portal_id)
            if reason and event.kind != "identify":
                yield Skip(item=place, reason=reason)
                continue
            try:
                if event.kind == "identify":
                    email = contacts.email_of(event.fields)
                    known.append((place, email, contacts.properties_of(event.fields)))
                else:
                    happened.append((place, events.occurrence_of(event, name, batch.now_us)))
            except RecordRejected as error:
                yield Skip(item=place, reason=error.reason, field=error.field)
        yield from self._upsert(known)
        for start in range(0, len(happened), events.MOST):
            part = happened[start : start + events.MOST]
            places, occurrences = [place for place, _ in part], [one for _, one in part]
            if len(part) == 1:
                yield self._request("POST", self.settings.path("events", "send"), places, occurrences[0])
            else:
                body = {"inputs": occurrences}
                yield self._request("POST", self.settings.path("events", "send/batch"), places, body)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """A deletion for good by each e-mail address, as the GDPR has it."""
        for place, subject in enumerate(batch.subjects):
            emails: dict[str, None] = {}
            for value in subject.identifiers.get("email", ()):
                try:
                    emails[contacts.normalise("email", value).sent] = None
                except RecordRejected:
                    continue  # nobody was sent with it
            if not emails:
                yield Skip(item=place, reason="no e-mail address, by which HubSpot knows contacts")
            for email in emails:
                body = {"objectId": email, "idProperty": "email"}
                yield self._request("POST", self.settings.path("objects", "contacts/gdpr-delete"), [place], body)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What HubSpot's answer means, see `answers`."""
        return answers.read(request, response)

    def poll(self, job: Job) -> Request:
        """PUT contacts onto the list, or take them off, by HubSpot's ids."""
        step, _, ids = job.id.partition(":")
        url = self.settings.path("lists", f"{self.settings.list_id}/memberships/{step}")
        return self._request("PUT", url, range(job.items), ids.split(","))

    def check(self) -> Iterable[Check]:
        """Reads of a contact and of the list."""
        url = self.settings.path("objects", "contacts?limit=1")
        yield Check(title="May see contacts", request=self._request("GET", url, ()))
        if self.settings.list_id:
            url = self.settings.path("lists", self.settings.list_id)
            yield Check(title="May see the list", request=self._request("GET", url, ()))

    def read_check(self, check: Check, response: Response) -> str:
        """What HubSpot says to it."""
        return answers.sentence(response, of_list="/lists/" in check.request.url)

    def lists(self, page: str = "") -> Request:
        """POST lists/search for static lists, 100 a page."""
        return self._request("POST", self.settings.path("lists", "search"), (), lists.search(page))

    def create_list(self, name: str) -> Request:
        """POST a static list of contacts."""
        return self._request("POST", self.settings.path("lists", ""), (), lists.new(name))

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The lists of a page, or the one that was made."""
        return lists.read(response)

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as HubSpot takes it."""
        return contacts.normalise(field, value)

    def _change(self, resource: str, purpose: str, batch: MemberBatch) -> Iterable[Built]:
        if not self.settings.list_id:
            reason = "choose a static list in the settings, or make one"
            yield from (Skip(item=n, reason=reason, field="list_id", is_failure=True) for n in range(len(batch.rows)))
            return
        found = [(place, row.data["email"], row.data["properties"]) for place, row in enumerate(batch.rows)]
        url = self.settings.path("objects", f"contacts/{resource}") + (f"#{purpose}" if purpose else "")
        body_of = contacts.upsert if purpose else contacts.look_up
        for part in contacts.parts(found):
            yield self._request("POST", url, [place for place, _, _ in part], body_of(part))

    def _upsert(self, known: Sequence[contacts.Contact]) -> Iterable[Request]:
        url = self.settings.path("objects", "contacts/batch/upsert")
        for part in contacts.parts(known):
            yield self._request("POST", url, [place for place, _, _ in part], contacts.upsert(part))

    def _request(
        self, method: str, url: str, items: Iterable[int], body: Mapping[str, Any] | Sequence[str] | None = None
    ) -> Request:
        raw = (
            b""
            if body is None
            else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        )
        headers = {} if body is None else {"Content-Type": "application/json"}
        return Request(method=method, url=url, headers=headers, body=raw, items=tuple(items))
