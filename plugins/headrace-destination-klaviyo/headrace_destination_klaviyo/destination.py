"""The Klaviyo destination: profiles, events, a list, subscriptions to marketing, and deletion.

https://developers.klaviyo.com/en/reference/api_overview
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace_destination_klaviyo import answers, consents, events, jobs, lists, people, profiles
from headrace_destination_klaviyo.fields import FIELDS
from headrace_destination_klaviyo.settings import REVISION_ENDS, KlaviyoSettings
from headrace_sdk import (
    ApiVersions,
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
    LimitScope,
    Lists,
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
)
from headrace_sdk.auth import ApiKey
from headrace_sdk.commerce import event_name

MOST_ITEMS = 1_000
_JSON_API = "application/vnd.api+json"

MANIFEST = Manifest(
    name="klaviyo",
    title="Klaviyo",
    description="Profiles, events, a list kept equal to an audience, and subscriptions to marketing with consent.",
    factory="headrace_destination_klaviyo.destination:Klaviyo",
    settings=KlaviyoSettings,
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
    batch=BatchPolicy(max_items=MOST_ITEMS, max_bytes=5_000_000, max_wait_s=1.0),
    limits=(  # of the endpoints of the size M, per account
        RateLimit(count=10, per_s=1.0, scope=LimitScope.SETTING, setting="api_key"),
        RateLimit(count=150, per_s=60.0, scope=LimitScope.SETTING, setting="api_key"),
    ),
    timeout_s=60.0,
    idempotency=Idempotency.KEY,
    rows_match_people=True,
    auth=ApiKey(setting="api_key", header="Authorization", prefix="Klaviyo-API-Key "),
    versions=ApiVersions(setting="revision", ends=REVISION_ENDS),
    any_of=(("email", "phone", "user_id", "anonymous_id"),),
    events=events.STANDARD_EVENTS,
    removal_keys=(("email",), ("phone",), ("user_id",)),
    not_deleted="Profiles that Klaviyo knows by neither an e-mail address nor a phone number of the person.",
)


class Klaviyo(Destination[KlaviyoSettings]):
    """Sends profiles and events, keeps a list, and subscribes people to marketing."""

    manifest = MANIFEST

    def rows(self, member: Member) -> Sequence[Row]:
        """One row: the profile, and the channels to which the member is to be subscribed.

        Its key goes by identifiers and channels alone, so that a new name does not take the person off the list for a
        moment, which would start Klaviyo's flows of newcomers again.
        """
        identifiers, problems = people.identifiers_of(member.fields)
        if not identifiers:
            field, reason = problems[0] if problems else ("", "has no e-mail, phone number or external id")
            raise RecordRejected(f"{field} {reason}".strip(), field)
        channels = consents.of_member(member.fields) if self.settings.subscribe_members else []
        channels = profiles.reachable(identifiers, channels)
        key = Row.of([identifiers, channels]).key
        return [Row(key=key, data={**identifiers, **people.attributes_of(member.fields), "subscribe": channels})]

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """An import job that puts profiles onto the list, and a subscription job for those whose consent says so."""
        if not self.settings.list_id:
            yield from _without_list(batch)
            return
        kept: list[int] = []
        subscribed: list[int] = []
        for place, row in enumerate(batch.rows):
            (subscribed if row.data["subscribe"] else kept).append(place)
        if kept:
            yield self._post(
                profiles.BULK_PATH, kept, profiles.bulk((_profile(batch.rows[p]) for p in kept), self.settings.list_id)
            )
        if subscribed:
            rows = [batch.rows[place].data for place in subscribed]
            people_of = [profiles.subscribed(row, row["subscribe"], consents.SUBSCRIBED) for row in rows]
            body = profiles.subscriptions(profiles.SUBSCRIBE_PATH, people_of, self.settings.list_id)
            yield self._post(profiles.SUBSCRIBE_PATH, subscribed, body)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """A search for Klaviyo's ids of the profiles, by one identifier each; by the ids `poll` takes them off.

        The identifiers stand in the address, since Klaviyo has no other search. An import would answer with the ids,
        too, but make the profiles again of people whom Klaviyo has forgotten meanwhile.
        """
        if not self.settings.list_id:
            yield from _without_list(batch)
            return
        known: dict[str, list[tuple[int, str]]] = {}
        for place, row in enumerate(batch.rows):
            name, value = _identifier(row.data)
            known.setdefault(name, []).append((place, value))
        for name, found in known.items():
            for part in profiles.parts(found):
                path = profiles.search(name, [value for _, value in part])
                yield self._request("GET", f"{path}#{jobs.TAKE_OFF}", [place for place, _ in part])

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Events, profiles of identify events, and subscriptions of events that speak of consent."""
        known: list[tuple[int, Mapping[str, Any]]] = []
        happened: list[tuple[int, Mapping[str, Any], Mapping[str, Any]]] = []
        for place, event in enumerate(batch.events):
            if events.is_consent(event):
                yield from self._consent(place, event)
                continue
            profile, problems = events.profile_of(event.fields)
            metric, reason = events.metric_of(event, self.settings.event_names)
            if event.kind == "identify":
                reason = "" if set(profile) - {"anonymous_id"} else "has no identifier by which Klaviyo knows people"
            elif not reason and not profile:
                reason = "has no identifier by which Klaviyo knows people"
            if reason:
                yield Skip(
                    item=place, reason=f"{problems[0][0]} {problems[0][1]}" if problems and not profile else reason
                )
                continue
            if problems:
                yield Note(item=place, reason="left out: " + "; ".join(f"{field} {why}" for field, why in problems))
            if event.kind == "identify":
                known.append((place, _identified(profile, event)))
            else:
                happened.append((place, events.attributes_of(event, metric, batch.now_us), profile))
        if len(known) == 1:
            yield self._post(profiles.IMPORT_PATH, [known[0][0]], profiles.single(known[0][1]))
        elif known:
            yield self._post(profiles.BULK_PATH, [place for place, _ in known], profiles.bulk(one for _, one in known))
        if len(happened) == 1:
            yield self._post(events.EVENT_PATH, [happened[0][0]], events.single(*happened[0][1:]))
        elif happened:
            body = events.bulk((event, profile) for _, event, profile in happened)
            yield self._post(events.BULK_PATH, [place for place, _, _ in happened], body)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """A request for deletion by each e-mail address and phone number: Klaviyo takes one a request."""
        for place, subject in enumerate(batch.subjects):
            found: dict[tuple[str, str], None] = {}
            for field in ("email", "phone"):
                for value in subject.identifiers.get(field, ()):
                    identifiers, _ = people.identifiers_of({field: value})
                    found |= dict.fromkeys(identifiers.items())
            if not found:
                yield Skip(item=place, reason="no e-mail address or phone number by which Klaviyo forgets people")
            for name, value in found:
                yield self._post(profiles.DELETE_PATH, [place], profiles.deletion(name, value))

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Klaviyo's answer means, see `answers` and `jobs`."""
        return answers.read(request, response)

    def poll(self, job: Job) -> Request:
        """The next step of a job, see `jobs`."""
        _, step, argument = job.id.split(":", 2)
        method, path, body = jobs.path_of(step, argument, self.settings.list_id)
        return self._request(method, f"{path}#{job.id}", range(job.items), body)

    def check(self) -> Iterable[Check]:
        """Reads of a profile and of the list."""
        path = "/api/profiles?fields%5Bprofile%5D=id&page%5Bsize%5D=1"
        yield Check(title="May see profiles", request=self._request("GET", path, ()))
        if self.settings.list_id:
            path = f"{lists.PATH}/{self.settings.list_id}?fields%5Blist%5D=name"
            yield Check(title="May see the list", request=self._request("GET", path, ()))

    def read_check(self, check: Check, response: Response) -> str:
        """What Klaviyo says to it."""
        return answers.sentence(response)

    def lists(self, page: str = "") -> Request:
        """GET lists, ten a page."""
        return self._request("GET", lists.page_path(page), ())

    def create_list(self, name: str) -> Request:
        """POST a list."""
        return self._post(lists.PATH, (), lists.new(name))

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The lists of a page, or the one that was made."""
        return lists.read(response)

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as Klaviyo takes it."""
        return people.normalise(field, value)

    def _consent(self, place: int, event: EventItem) -> Iterable[Built]:
        identifiers, _ = people.identifiers_of(event.fields)
        said = consents.of_event(event, self.settings.email_purpose, self.settings.sms_purpose)
        made: list[Request] = []
        if event_name(event.name, (), self.settings.event_names) == "":
            yield Skip(item=place, reason="the setting event_names leaves it out")
            return
        for path, consent in consents.JOBS:
            channels = profiles.reachable(identifiers, said[consent])
            if channels:
                person = profiles.subscribed(identifiers, channels, consent)
                body = profiles.subscriptions(path, [person], self.settings.subscription_list_id)
                made.append(self._post(path, [place], body))
        if not made:
            spoken = any(said.values())
            reason = "no address or number to subscribe" if spoken else "says nothing that counts about marketing"
            yield Skip(item=place, reason=reason)
        yield from made

    def _post(self, path: str, items: Iterable[int], body: Mapping[str, Any]) -> Request:
        return self._request("POST", path, items, body)

    def _request(self, method: str, path: str, items: Iterable[int], body: Mapping[str, Any] | None = None) -> Request:
        headers = {"Accept": _JSON_API, "revision": self.settings.revision}
        if body is not None:
            headers["Content-Type"] = _JSON_API
        return Request(
            method=method,
            url=f"{self.settings.base_url}{path}",
            headers=headers,
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
            if body
            else b"",
            items=tuple(items),
        )


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _without_list(batch: MemberBatch) -> Iterable[Built]:
    for place in range(len(batch.rows)):
        yield Skip(item=place, reason="choose a list in the settings, or make one", field="list_id", is_failure=True)


def _profile(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.data.items() if name != "subscribe"}


def _identifier(data: Mapping[str, Any]) -> tuple[str, str]:
    """Name and value of the identifier by which Klaviyo surely finds a profile."""
    name = next(name for name in ("email", "phone_number", "external_id") if name in data)
    return name, data[name]


def _identified(profile: Mapping[str, Any], event: EventItem) -> dict[str, Any]:
    """A profile with its properties. An import does not take the anonymous id."""
    found = {name: value for name, value in profile.items() if name != "anonymous_id"}
    properties = people.properties_of(event.fields.get("profile_properties"))
    return {**found, "properties": properties} if properties else found
