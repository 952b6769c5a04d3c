"""The Google Ads audience destination: keeps a Customer Match list equal to an audience, by the Data Manager API.

https://developers.google.com/data-manager/api/devguides/audiences/google-ads/customer-match/upload-data
https://developers.google.com/data-manager/api/devguides/limits
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from headrace_destination_google_ads_audience import answers, people
from headrace_destination_google_ads_audience.settings import Consent, GoogleAdsAudienceSettings, KeyType
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    ConfigError,
    DeleteBatch,
    Destination,
    Idempotency,
    Job,
    LimitScope,
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
from headrace_sdk.auth import OAuth2
from headrace_sdk.values import sha256

MOST_MEMBERS = 10_000
_INGEST = "/v1/audienceMembers:ingest"
_REMOVE = "/v1/audienceMembers:remove"
_UPLOAD_KEYS = {KeyType.CONTACT: "CONTACT_ID", KeyType.USER_ID: "USER_ID", KeyType.MOBILE: "MOBILE_ID"}
_INFOS = {KeyType.CONTACT: "contactIdInfo", KeyType.USER_ID: "userIdInfo"}
_DAY_S = 86_400

MANIFEST = Manifest(
    name="google-ads-audience",
    title="Google Ads audiences",
    description="Keeps a Customer Match list equal to an audience. Contact data is sent as SHA-256.",
    factory="headrace_destination_google_ads_audience.destination:GoogleAdsAudience",
    settings=GoogleAdsAudienceSettings,
    capabilities=frozenset(
        {Capability.LIST_SYNC, Capability.DELETION, Capability.JOBS, Capability.LISTS, Capability.CHECK}
    ),
    list_setting="user_list_id",
    fields=people.FIELDS,
    batch=BatchPolicy(max_items=MOST_MEMBERS, max_bytes=10_000_000, max_wait_s=5.0),
    limits=(
        # Google counts per Cloud project, which is the one of the OAuth client.
        RateLimit(count=300, per_s=60.0, scope=LimitScope.SETTING, setting="client_id"),
        RateLimit(count=100_000, per_s=86_400.0, scope=LimitScope.SETTING, setting="client_id"),
    ),
    timeout_s=60.0,
    idempotency=Idempotency.NATURAL,
    rows_match_people=True,
    auth=OAuth2(
        token_url="setting:token_url",  # noqa: S106 - the name of a setting
        client_id="client_id",
        client_secret="client_secret",  # noqa: S106 - the name of a setting
        refresh_token="refresh_token",  # noqa: S106 - the name of a setting
    ),
    removal_keys=(
        ("email",), ("phone",), ("first_name", "last_name", "zip", "country"), ("user_id",), ("mobile_id",),
    ),
    minimum_list_size=100,
    not_deleted="Reports in Google Ads; the person is taken off the list alone.",
)  # fmt: skip


class GoogleAdsAudience(Destination[GoogleAdsAudienceSettings]):
    """Keeps a Customer Match list of a Google Ads account equal to an audience."""

    manifest = MANIFEST

    def rows(self, member: Member) -> Sequence[Row]:
        """A row with all contact data of the person, or one per user id, or one with all devices."""
        return people.rows_of(member.fields, self.settings.key_type)

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """POST audienceMembers:ingest, up to 10,000 members each."""
        yield from self._change(_INGEST, batch)

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """POST audienceMembers:remove with the members that were added, up to 10,000 each."""
        yield from self._change(_REMOVE, batch)

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """Takes people off the list by each of their identifiers."""
        items: list[int] = []
        members: list[dict[str, Any]] = []
        for place, subject in enumerate(batch.subjects):
            found = people.members_of(subject, self.settings.key_type)
            if not found:
                yield Skip(item=place, reason="no identifier by which the list knows people")
                continue
            if items and len(members) + len(found) > MOST_MEMBERS:
                yield self._request(_REMOVE, items, members)
                items, members = [], []
            items.append(place)
            members += found
        if items:
            yield self._request(_REMOVE, items, members)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Google's answer means, see `answers`."""
        return answers.read(request, response, patience_us=self.settings.patience_hours * 3_600_000_000)

    def poll(self, job: Job) -> Request:
        """GET requestStatus:retrieve with the id of the request.

        The job stands behind the address as its fragment, which is not sent: `read` finds there how long it has lasted.
        """
        request_id = quote(answers.request_id(job.id), safe="")
        return Request(
            method="GET",
            url=f"{self.settings.base_url}{answers.STATUS_PATH}?requestId={request_id}#{quote(job.id, safe='')}",
            items=tuple(range(job.items)),
        )

    def check(self) -> Iterable[Check]:
        """The upload of a made-up member that Google validates and does not carry out."""
        examples: dict[KeyType, dict[str, Any]] = {
            KeyType.CONTACT: {"userData": {"userIdentifiers": [{"emailAddress": sha256("check@example.com")}]}},
            KeyType.USER_ID: {"userIdData": {"userId": "headrace-check"}},
            KeyType.MOBILE: {"mobileData": {"mobileIds": ["aebe52e7-03ee-455a-b3c4-e57283966239"]}},
        }
        example = examples[self.settings.key_type]
        yield Check(title="May change the list", request=self._request(_INGEST, (), [example], validate_only=True))

    def read_check(self, check: Check, response: Response) -> str:
        """What Google says to it."""
        return answers.sentence(response)

    def lists(self, page: str = "") -> Request:
        """GET userLists of the account, up to 1,000 a page."""
        token = f"&pageToken={quote(page, safe='')}" if page else ""
        return Request(
            method="GET", url=f"{self._user_lists()}?pageSize=1000{token}", headers=self._login_header(), items=()
        )

    def create_list(self, name: str) -> Request:
        """POST a list of first-party data.

        Raises:
            ConfigError: It would be a list of devices: Google wants an app for it.
        """
        info = _INFOS.get(self.settings.key_type)
        if info is None:
            raise ConfigError("a list of devices belongs to an app: make it in Google Ads", "key_type")
        body = {
            "displayName": name,
            "membershipDuration": f"{self.settings.membership_days * _DAY_S}s",
            "ingestedUserListInfo": {
                "uploadKeyTypes": [_UPLOAD_KEYS[self.settings.key_type]],
                info: {"dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY"},
            },
        }
        headers = {"Content-Type": "application/json", **self._login_header()}
        return Request(method="POST", url=self._user_lists(), headers=headers, body=_json(body), items=())

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The lists of a page that take this kind of data, or the one that was made."""
        answer = response.json_object()
        if not 200 <= response.status < 300 or "error" in answer:
            error = answer.get("error")
            answers.raise_for(response, error if isinstance(error, Mapping) else {})
        if request.method == "POST":
            made = _list_of(answer)
            if made is None:
                raise TransientError("Google answered with something that is no list")
            return Lists(lists=(made,))
        wanted = _UPLOAD_KEYS[self.settings.key_type]
        found = answer.get("userLists", [])
        lists = [_list_of(one) for one in found if isinstance(one, Mapping) and wanted in _key_types(one)]
        page = answer.get("nextPageToken")
        return Lists(lists=tuple(one for one in lists if one), next_page=page if isinstance(page, str) else "")

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as Google compares it, and as it is sent."""
        return people.normalise(field, value)

    def _change(self, path: str, batch: MemberBatch) -> Iterable[Built]:
        for start in range(0, len(batch.rows), MOST_MEMBERS):
            part = batch.rows[start : start + MOST_MEMBERS]
            yield self._request(path, range(start, start + len(part)), [row.data for row in part])

    def _request(
        self, path: str, items: Iterable[int], members: Sequence[Mapping[str, Any]], *, validate_only: bool = False
    ) -> Request:
        settings = self.settings
        destination: dict[str, Any] = {"operatingAccount": _account(settings.customer_id)}
        if settings.login_customer_id:
            destination["loginAccount"] = _account(settings.login_customer_id)
        destination["productDestinationId"] = settings.user_list_id
        body: dict[str, Any] = {"destinations": [destination]}
        if path == _REMOVE:
            body["audienceMembers"] = [{k: v for k, v in member.items() if k != "consent"} for member in members]
        else:
            body["audienceMembers"] = list(members)
            if consent := self._consent():
                body["consent"] = consent
            if settings.terms_accepted and settings.key_type is not KeyType.USER_ID:
                body["termsOfService"] = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
        if settings.key_type is KeyType.CONTACT:
            body["encoding"] = "HEX"
        if validate_only:
            body["validateOnly"] = True
        return Request(
            method="POST",
            url=f"{settings.base_url}{path}",
            headers={"Content-Type": "application/json"},
            body=_json(body),
            items=tuple(items),
        )

    def _consent(self) -> dict[str, str]:
        """What holds for people who said nothing: what they said stands at the member and wins."""
        found = {}
        if self.settings.consent_ad_user_data is Consent.GRANTED:
            found["adUserData"] = "CONSENT_GRANTED"
        if self.settings.consent_ad_personalization is Consent.GRANTED:
            found["adPersonalization"] = "CONSENT_GRANTED"
        return found

    def _user_lists(self) -> str:
        return f"{self.settings.base_url}/v1/accountTypes/GOOGLE_ADS/accounts/{self.settings.customer_id}/userLists"

    def _login_header(self) -> dict[str, str]:
        login = self.settings.login_customer_id
        return {"login-account": f"accountTypes/GOOGLE_ADS/accounts/{login}"} if login else {}


def _account(customer_id: str) -> dict[str, str]:
    return {"accountId": customer_id, "accountType": "GOOGLE_ADS"}


def _key_types(found: Mapping[str, Any]) -> Sequence[Any]:
    info = found.get("ingestedUserListInfo")
    keys = info.get("uploadKeyTypes") if isinstance(info, Mapping) else None
    return keys if isinstance(keys, list) else ()


def _list_of(found: Mapping[str, Any]) -> VendorList | None:
    """A list of Google's; None when it has no id."""
    number = found.get("id") or str(found.get("name", "")).rpartition("/userLists/")[2]
    if not str(number).isdecimal():
        return None
    sizes = found.get("sizeInfo")
    size = sizes.get("displayNetworkMembersCount") if isinstance(sizes, Mapping) else None
    return VendorList(
        id=str(number), name=str(found.get("displayName", "")), size=int(str(size)) if str(size).isdecimal() else None
    )


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
