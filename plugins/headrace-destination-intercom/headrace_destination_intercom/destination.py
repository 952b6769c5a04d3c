"""The Intercom destination: contacts, a tag of an audience's members, events, and deletion.

https://developers.intercom.com/docs/references/rest-api/api.intercom.io
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace_destination_intercom import answers, contacts, events
from headrace_destination_intercom.fields import FIELDS
from headrace_destination_intercom.settings import IntercomSettings
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
    TransientError,
    VendorList,
)

MANIFEST = Manifest(
    name="intercom",
    title="Intercom",
    description="Contacts, a tag that an audience's members have, events, and deletion.",
    factory="headrace_destination_intercom.destination:Intercom",
    settings=IntercomSettings,
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
    batch=BatchPolicy(max_items=50, max_bytes=1_000_000, max_wait_s=0.5),
    limits=(RateLimit(count=1_666, per_s=10.0),),
    concurrency=8,
    idempotency=Idempotency.KEY,
    rows_match_people=True,
    auth=Bearer(setting="access_token"),
    versions=ApiVersions(setting="api_version", ends={}),  # Intercom has named no end of any
    any_of=(("user_id", "email"),),
    removal_keys=(("user_id",), ("email",)),
    not_deleted="Contacts that Intercom knows by neither an external id nor an e-mail address of the person.",
)


class Intercom(Destination[IntercomSettings]):
    """Brings contacts up to date, keeps a tag on them, and sends events."""

    manifest = MANIFEST

    def rows(self, member: Member) -> Sequence[Row]:
        """One row: the contact. Its key goes by identifiers alone, so that a new name does not touch the tag."""
        user = contacts.user_of(member.fields)
        key = Row.of({name: user[name] for name in contacts.FINDING if name in user}).key
        return [Row(key=key, data=user)]

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """POST of a contact, whom `poll` gives the tag."""
        if not self.settings.list_id:
            yield from _without_tag(batch)
            return
        for place, row in enumerate(batch.rows):
            yield self._request("POST", f"/contacts#{answers.TAG}", [place], row.data)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """A search for contacts, from whom `poll` takes the tag."""
        if not self.settings.list_id:
            yield from _without_tag(batch)
            return
        for place, row in enumerate(batch.rows):
            wanted = {name: [row.data[name]] for name in contacts.FINDING if name in row.data}
            for body in contacts.searches(wanted):
                yield self._request("POST", f"/contacts/search#{answers.UNTAG}", [place], body)

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Contacts of identify events, and events."""
        for place, event in enumerate(batch.events):
            name, reason = events.name_of(event, self.settings.event_names)
            if reason and event.kind != "identify":
                yield Skip(item=place, reason=reason)
                continue
            try:
                if event.kind == "identify":
                    user = contacts.user_of(event.fields)
                    if attributes := contacts.attributes_of(event.fields.get("custom_attributes")):
                        user["custom_attributes"] = attributes
                    yield self._request("POST", "/contacts", [place], user)
                else:
                    yield self._request("POST", "/events", [place], events.body_of(event, name, batch.now_us))
            except RecordRejected as error:
                yield Skip(item=place, reason=error.reason, field=error.field)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """A search for contacts by all that is known, whom `poll` asks to delete for good."""
        for place, subject in enumerate(batch.subjects):
            wanted: dict[str, list[str]] = {}
            for field in ("user_id", "email"):
                for value in subject.identifiers.get(field, ()):
                    for name, found in contacts.identifiers_of({field: value})[0].items():
                        wanted.setdefault(name, []).append(found)
            if not wanted:
                yield Skip(item=place, reason="no external id or e-mail address by which Intercom knows people")
                continue
            for body in contacts.searches(wanted):
                yield self._request("POST", f"/contacts/search#{answers.FORGET}", [place], body)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Intercom's answer means, see `answers`."""
        return answers.read(request, response)

    def poll(self, job: Job) -> Request:
        """The next step, for which Intercom's id of a contact had to be known."""
        step, _, argument = job.id.partition(":")
        items = range(job.items)
        if step == answers.MAKE:
            return self._request("POST", f"/contacts#{answers.MAKE}", items, json.loads(argument))
        if step == answers.UPDATE:
            known, _, body = argument.partition(":")
            return self._request("PUT", f"/contacts/{known}", items, json.loads(body))
        known, _, rest = argument.partition(",")
        if step == answers.FORGET:
            path = f"/user_delete_requests#{step}:{rest}"
            return self._request("POST", path, items, {"intercom_user_id": known})
        if step == answers.TAG:
            return self._request("POST", f"/contacts/{known}/tags#{step}", items, {"id": self.settings.list_id})
        return self._request("DELETE", f"/contacts/{known}/tags/{self.settings.list_id}#{step}:{rest}", items)

    def check(self) -> Iterable[Check]:
        """The app's own admin, and the tag."""
        yield Check(title="May read the workspace", request=self._request("GET", "/me", ()))
        if self.settings.list_id:
            path = f"/tags/{self.settings.list_id}"
            yield Check(title="May see the tag", request=self._request("GET", path, ()))

    def read_check(self, check: Check, response: Response) -> str:
        """What Intercom says to it."""
        if response.status == 404 and "/tags/" in check.request.url:
            return "Intercom does not know the tag: choose another one, or make one."
        return answers.sentence(response)

    def lists(self, page: str = "") -> Request:
        """GET tags, all in one answer."""
        return self._request("GET", "/tags", ())

    def create_list(self, name: str) -> Request:
        """POST a tag."""
        return self._request("POST", "/tags", (), {"name": name})

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The tags, or the one that was made."""
        answer = answers.accepted(response)
        given = [answer] if request.method == "POST" else answer.get("data")
        if not isinstance(given, list):
            raise TransientError("Intercom answered with something that is no list of tags")
        rows = [one for one in given if isinstance(one, Mapping) and one.get("id")]
        if request.method == "POST" and not rows:
            raise TransientError("Intercom answered without the id of a tag")
        return Lists(lists=tuple(VendorList(id=str(one["id"]), name=str(one.get("name") or one["id"])) for one in rows))

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as Intercom takes it."""
        return contacts.normalise(field, value)

    def _request(self, method: str, path: str, items: Iterable[int], body: Mapping[str, Any] | None = None) -> Request:
        headers = {"Accept": "application/json", "Intercom-Version": self.settings.api_version}
        raw = b""
        if body is not None:
            headers["Content-Type"] = "application/json"
            raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        return Request(method=method, url=f"{self.settings.host}{path}", headers=headers, body=raw, items=tuple(items))


def _without_tag(batch: MemberBatch) -> Iterable[Built]:
    for place in range(len(batch.rows)):
        yield Skip(item=place, reason="choose a tag in the settings, or make one", field="list_id", is_failure=True)
