"""The Brevo destination: contacts, events, and a contact list that is kept equal to an audience.

https://developers.brevo.com/reference/introduction
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from headrace_destination_brevo import answers, contacts, events, lists
from headrace_destination_brevo.fields import FIELDS
from headrace_destination_brevo.settings import BrevoSettings
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
    Job,
    Lists,
    Manifest,
    Member,
    MemberBatch,
    Normalised,
    Note,
    Outcomes,
    RateLimit,
    Request,
    Response,
    Row,
    Skip,
)
from headrace_sdk.auth import ApiKey

MAX_EVENTS = 200
LARGEST_EVENTS = 512_000
MAX_LISTED = 150
MAX_ROWS = 20_000
CONTACTS, EVENTS, IMPORT, PROCESSES = "/contacts", "/events/batch", "/contacts/import", "/processes/"

MANIFEST = Manifest(
    name="brevo",
    title="Brevo",
    description="Sends contacts and events to Brevo, and keeps a contact list equal to an audience.",
    factory="headrace_destination_brevo.destination:Brevo",
    settings=BrevoSettings,
    capabilities=frozenset(
        {
            Capability.FORWARDING,
            Capability.EVENT_SYNC,
            Capability.LIST_SYNC,
            Capability.DELETION,
            Capability.LISTS,
            Capability.CHECK,
            Capability.JOBS,
        }
    ),
    list_setting="list_id",
    fields=FIELDS,
    batch=BatchPolicy(max_items=MAX_ROWS, max_bytes=8_000_000, max_wait_s=2.0),
    limits=(RateLimit(count=10, per_s=1.0), RateLimit(count=36_000, per_s=3_600.0)),
    concurrency=4,
    timeout_s=60.0,
    idempotency=Idempotency.NONE,  # of events, which have no id at Brevo; lists stay right whatever is repeated
    auth=ApiKey(setting="api_key", header="api-key"),
    any_of=(("email", "user_id", "phone"),),
    removal_keys=(("email",),),
)


class Brevo(Destination[BrevoSettings]):
    """Sends contacts and events to an account of Brevo."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Up to 200 events a request; a request for each person of an identify event."""
        items: list[int] = []
        parts: list[bytes] = []
        size = 0
        for place, event in enumerate(batch.events):
            if event.kind == "identify":
                yield from self._identify(place, event)
                continue
            made, reason = events.event_of(event, self.settings, batch.now_us)
            if reason:
                yield Skip(item=place, reason=reason)
                continue
            body = _json(made)
            if len(items) == MAX_EVENTS or (items and size + len(body) > LARGEST_EVENTS - len(_json({"events": []}))):
                yield self._events(items, parts)
                items, parts, size = [], [], 0
            items.append(place)
            parts.append(body)
            size += len(body) + 1
        if items:
            yield self._events(items, parts)

    def rows(self, member: Member) -> Sequence[Row]:
        """A row per e-mail address of the person."""
        return contacts.rows_of(member.fields, self.settings)

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """Contacts are made and put on the list: few of them one by one, many by an import."""
        settings = self.settings
        if not settings.list_id:
            yield from _without_list(batch)
        elif not settings.creates_contacts:
            yield from self._listed("add", batch)
        elif settings.import_from and len(batch.rows) >= settings.import_from:
            yield self._import(batch.rows)
        else:
            for place, row in enumerate(batch.rows):
                yield self._contact(place, {**row.data, "listIds": [int(settings.list_id)]})

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """Up to 150 contacts a request are taken off the list; they stay contacts."""
        yield from self._listed("remove", batch) if self.settings.list_id else _without_list(batch)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """A request for each identifier of a person: Brevo deletes one contact at a time."""
        for place, subject in enumerate(batch.subjects):
            found = contacts.identifiers_of(subject, self.settings)
            if not found:
                yield Skip(
                    item=place, reason="no e-mail address, user id or phone number by which Brevo finds contacts"
                )
            for kind, value in found:
                path = f"{CONTACTS}/{quote(value, safe='')}?identifierType={kind}"
                yield self._request("DELETE", path, b"", (place,))

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Brevo's answer means, see `answers`."""
        path = urlsplit(request.url).path
        if request.method == "DELETE":
            return answers.read_deletion(request, response)
        if path.endswith(EVENTS):
            return answers.read_events(request, response)
        if path.endswith(IMPORT):
            return answers.read_import(request, response)
        if PROCESSES in path:
            return answers.read_process(request, response, path.rpartition("/")[2])
        if path.endswith(("/contacts/add", "/contacts/remove")):
            return answers.read_list(request, response, adds=path.endswith("/add"))
        return answers.read_contact(request, response)

    def poll(self, job: Job) -> Request:
        """How an import stands."""
        return self._request("GET", f"{PROCESSES}{job.id}", b"", range(job.items))

    def check(self) -> Iterable[Check]:
        """Whether the API key works, and whether the list is there."""
        yield Check(title="The API key works", request=self._request("GET", "/account", b"", ()))
        if self.settings.list_id:
            request = self._request("GET", f"/contacts/lists/{self.settings.list_id}", b"", ())
            yield Check(title="The list is there", request=request)

    def read_check(self, check: Check, response: Response) -> str:
        """What Brevo says of the key and the list."""
        return lists.problem_of(response)

    def lists(self, page: str = "") -> Request:
        """The account's lists, fifty at a time."""
        return self._request("GET", lists.path(page), b"", ())

    def create_list(self, name: str) -> Request:
        """A new list in the folder of the settings."""
        body = _json({"name": name, "folderId": int(self.settings.folder_id)})
        return self._request("POST", "/contacts/lists", body, ())

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The lists, or the one that was made."""
        return lists.read(request, response)

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as Brevo compares it."""
        return contacts.normalise(field, value)

    def _identify(self, place: int, event: EventItem) -> Iterable[Built]:
        made, problems = contacts.contact_of(event.fields, self.settings)
        if not {"email", "ext_id"} & set(made) and "SMS" not in made.get("attributes", {}):
            reason = problems[0] if problems else "has no e-mail address, user id or phone number"
            yield Skip(item=place, reason=reason)
            return
        if problems:
            yield Note(item=place, reason=f"left out: {'; '.join(problems)}")
        yield self._contact(place, made)

    def _contact(self, place: int, contact: dict[str, Any]) -> Request:
        return self._request("POST", CONTACTS, _json({**contact, "updateEnabled": True}), (place,))

    def _events(self, items: Iterable[int], parts: Sequence[bytes]) -> Request:
        return self._request("POST", EVENTS, b'{"events":[' + b",".join(parts) + b"]}", items)

    def _import(self, rows: Sequence[Row]) -> Request:
        people = []
        for row in rows:
            attributes = dict(row.data.get("attributes", {}))
            if "ext_id" in row.data:
                attributes["EXT_ID"] = row.data["ext_id"]
            people.append({"email": row.data["email"], "attributes": attributes})
        body = {
            "jsonBody": people,
            "listIds": [int(self.settings.list_id)],
            "updateExistingContacts": True,
            "emptyContactsAttributes": False,
            "disableNotification": True,
        }
        return self._request("POST", IMPORT, _json(body), range(len(rows)))

    def _listed(self, action: str, batch: MemberBatch) -> Iterable[Built]:
        path = f"{CONTACTS}/lists/{self.settings.list_id}/contacts/{action}"
        for start in range(0, len(batch.rows), MAX_LISTED):
            part = batch.rows[start : start + MAX_LISTED]
            body = _json({"emails": [row.data["email"] for row in part]})
            yield self._request("POST", path, body, range(start, start + len(part)))

    def _request(self, method: str, path: str, body: bytes, items: Iterable[int]) -> Request:
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {})}
        return Request(
            method=method,
            url=f"{self.settings.base_url}{path}",
            headers=headers,
            body=body,
            items=tuple(items),
        )


def _without_list(batch: MemberBatch) -> Iterable[Built]:
    for place in range(len(batch.rows)):
        yield Skip(item=place, reason="choose a list in the settings, or make one", field="list_id", is_failure=True)


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
