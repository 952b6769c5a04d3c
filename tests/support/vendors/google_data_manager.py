"""A vendor that keeps the documented rules of Google's Data Manager API for Customer Match lists.

https://developers.google.com/data-manager/api/reference/rest/v1/audienceMembers/ingest and what it links to; the
members' names are those of the published protobuf (google-ads-datamanager).
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEVICE = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KINDS = {"userData": "CONTACT_ID", "userIdData": "USER_ID", "mobileData": "MOBILE_ID"}
_INGEST = frozenset(
    {"destinations", "audienceMembers", "consent", "encoding", "termsOfService", "validateOnly", "encryptionInfo"}
)
_REMOVE = frozenset({"destinations", "audienceMembers", "encoding", "validateOnly", "encryptionInfo"})
_STATUSES = frozenset({"CONSENT_GRANTED", "CONSENT_DENIED", "CONSENT_STATUS_UNSPECIFIED"})
_ADDRESS = frozenset({"givenName", "familyName", "regionCode", "postalCode"})
MOST_MEMBERS = 10_000

Violation = tuple[str, str]
"""Path and reason."""


@dataclass
class FakeDataManager:
    """The vendor. Point base_url and token_url of a destination at it, look at what its lists hold."""

    refresh_token: str = "refresh-for-tests"
    account: str = "1234567890"
    manager: str = "9876543210"
    lists: dict[str, str] = field(default_factory=lambda: {"777": "CONTACT_ID", "778": "USER_ID", "779": "MOBILE_ID"})
    members: dict[str, set[str]] = field(default_factory=dict)
    """Per list: what is on it, as canonical JSON without consent."""
    consents: list[dict[str, str] | None] = field(default_factory=list)
    statuses: deque[dict[str, Any]] = field(default_factory=deque)
    """What requestStatus:retrieve says next; success when empty."""
    looks: int = 0
    """How many looks at a request find it still being worked on, before it says any of these."""
    looked: Counter[str] = field(default_factory=Counter)
    """Request -> looks at it."""
    failures: deque[web.Response] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of uploads and removals that were taken."""
    tokens: set[str] = field(default_factory=set)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/token", self._token)
        app.router.add_post("/v1/{path:audienceMembers:(ingest|remove)}", self._change)
        app.router.add_get("/v1/requestStatus:retrieve", self._status)
        app.router.add_route("*", "/v1/accountTypes/GOOGLE_ADS/accounts/{account}/userLists", self._user_lists)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Address for the setting base_url; the token endpoint is /token there."""
        return f"http://127.0.0.1:{self.port}"

    async def _token(self, request: web.Request) -> web.Response:
        form = parse_qs(await request.text())
        wanted = {"grant_type": ["refresh_token"], "refresh_token": [self.refresh_token], "client_id": ["client"]}
        if any(form.get(name) != value for name, value in wanted.items()) or form.get("client_secret") != ["hush"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        token = f"ya29.test-{len(self.tokens)}"
        self.tokens.add(token)
        return web.json_response({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _unauthorised(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens:
            return None
        return error(401, "UNAUTHENTICATED", [])

    async def _change(self, request: web.Request) -> web.Response:
        if self.failures:
            return self.failures.popleft()
        if refused := self._unauthorised(request):
            return refused
        try:
            body = json.loads(await request.read())
        except ValueError:
            return error(400, "INVALID_ARGUMENT", [])
        removes = request.match_info["path"].endswith("remove")
        if unknown := set(body) - (_REMOVE if removes else _INGEST):
            return error(400, "INVALID_ARGUMENT", [(sorted(unknown)[0], "INVALID_ARGUMENT")])
        destination = (body.get("destinations") or [{}])[0]
        operating, login = destination.get("operatingAccount", {}), destination.get("loginAccount")
        right = {"accountId": self.account, "accountType": "GOOGLE_ADS"}
        if operating != right or login not in (None, {**right, "accountId": self.manager}):
            return error(403, "PERMISSION_DENIED", [], reason="PERMISSION_DENIED")
        violations = list(self._violations(body, str(destination.get("productDestinationId")), removes=removes))
        if violations:
            return error(400, "INVALID_ARGUMENT", violations, reason=violations[0][1])
        if not body.get("validateOnly"):
            self._carry_out(body, destination["productDestinationId"], removes=removes)
        return web.json_response({"requestId": f"request-{len(self.requests)}"})

    def _carry_out(self, body: dict[str, Any], user_list: str, *, removes: bool) -> None:
        self.requests.append(body)
        held = self.members.setdefault(user_list, set())
        for member in body["audienceMembers"]:
            self.consents.append(member.get("consent"))
            plain = json.dumps({key: value for key, value in member.items() if key != "consent"}, sort_keys=True)
            if removes:
                held.discard(plain)
            else:
                held.add(plain)

    def _violations(self, body: dict[str, Any], user_list: str, *, removes: bool) -> Iterator[Violation]:
        members = body.get("audienceMembers") or []
        if len(body["destinations"]) > 10:
            yield "destinations", "TOO_MANY_DESTINATIONS"
        if user_list not in self.lists:
            yield "destinations[0].product_destination_id", "INVALID_USER_LIST_ID"
            return
        if not members:
            yield "audience_members", "REQUIRED_FIELD_MISSING"
        if len(members) > MOST_MEMBERS:
            yield "audience_members", "TOO_MANY_AUDIENCE_MEMBERS"
        kinds = {kind for member in members for kind in _KINDS if kind in member}
        if len(kinds) > 1:
            yield "audience_members", "MULTIPLE_DATA_TYPES_NOT_ALLOWED"
        elif kinds and _KINDS[next(iter(kinds))] != self.lists[user_list]:
            yield "destinations[0].product_destination_id", "INVALID_USER_LIST_TYPE"
        if kinds == {"userData"} and body.get("encoding") != "HEX":
            yield "encoding", "REQUIRED_FIELD_MISSING"
        terms = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
        if not removes and kinds & {"userData", "mobileData"} and body.get("termsOfService") != terms:
            yield "terms_of_service", "TERMS_AND_CONDITIONS_NOT_SIGNED"
        if not removes:
            yield from _consent("consent", body.get("consent", {}))
        for place, member in enumerate(members):
            yield from _member(f"audience_members[{place}]", member)

    async def _status(self, request: web.Request) -> web.Response:
        if refused := self._unauthorised(request):
            return refused
        id = request.query.get("requestId", "")
        if not re.fullmatch(r"request-\d+", id):
            return error(400, "INVALID_ARGUMENT", [("request_id", "INVALID_REQUEST_ID")])
        self.looked[id] += 1
        if self.looked[id] <= self.looks:
            return web.json_response({"requestStatusPerDestination": [{"requestStatus": "PROCESSING"}]})
        status = self.statuses.popleft() if self.statuses else {"requestStatus": "SUCCESS"}
        return web.json_response({"requestStatusPerDestination": [status]})

    async def _user_lists(self, request: web.Request) -> web.Response:
        if refused := self._unauthorised(request):
            return refused
        if request.match_info["account"] != self.account:
            return error(403, "PERMISSION_DENIED", [], reason="PERMISSION_DENIED")
        if request.method == "POST":
            body = json.loads(await request.read())
            info = body["ingestedUserListInfo"]
            seconds = int(body["membershipDuration"].removesuffix("s"))
            if not body.get("displayName") or seconds % 86_400 or seconds > 540 * 86_400:
                return error(400, "INVALID_ARGUMENT", [("user_list", "MEMBERSHIP_DURATION_TOO_LONG")])
            number = str(800 + len(self.lists))
            (self.lists[number],) = info["uploadKeyTypes"]
            return web.json_response({"id": number, **body})
        numbers = sorted(self.lists)
        start = int(request.query.get("pageToken") or 0)
        page = [
            {"id": one, "displayName": f"List {one}", "ingestedUserListInfo": {"uploadKeyTypes": [self.lists[one]]},
             "sizeInfo": {"displayNetworkMembersCount": "1200"}}
            for one in numbers[start : start + 2]
        ]  # fmt: skip
        more = {"nextPageToken": str(start + 2)} if start + 2 < len(numbers) else {}
        return web.json_response({"userLists": page, **more})


def _member(path: str, member: dict[str, Any]) -> Iterator[Violation]:
    if len([kind for kind in _KINDS if kind in member]) != 1 or set(member) - {*_KINDS, "consent"}:
        yield path, "INVALID_AUDIENCE_MEMBER"
        return
    yield from _consent(f"{path}.consent", member.get("consent", {}))
    identifiers = member.get("userData", {}).get("userIdentifiers", [])
    devices = member.get("mobileData", {}).get("mobileIds", [])
    if max(len(identifiers), len(devices)) > 10:
        yield path, "TOO_MANY_USER_IDENTIFIERS"
    if "userData" in member and not identifiers:
        yield path, "REQUIRED_FIELD_MISSING"
    if "userIdData" in member and not member["userIdData"].get("userId"):
        yield path, "REQUIRED_FIELD_MISSING"
    for place, device in enumerate(devices):
        if not _DEVICE.fullmatch(device):
            yield f"{path}.mobile_data.mobile_ids[{place}]", "INVALID_MOBILE_ID_FORMAT"
    for place, identifier in enumerate(identifiers):
        yield from _identifier(f"{path}.user_data.user_identifiers[{place}]", identifier)


def _identifier(path: str, identifier: dict[str, Any]) -> Iterator[Violation]:
    if len(identifier) != 1 or not set(identifier) <= {"emailAddress", "phoneNumber", "address"}:
        yield path, "INVALID_ARGUMENT"
        return
    address = identifier.get("address")
    digests = [identifier.get("emailAddress"), identifier.get("phoneNumber")]
    if address is not None:
        if set(address) != _ADDRESS or not all(address.values()):
            yield path, "REQUIRED_FIELD_MISSING"
            return
        digests += [address["givenName"], address["familyName"]]
        if not re.fullmatch("[A-Z]{2}", address["regionCode"]):
            yield f"{path}.address.region_code", "INVALID_REGION_CODE"
    if not all(_SHA256.fullmatch(digest) for digest in digests if digest is not None):
        yield path, "INVALID_SHA256_FORMAT"


def _consent(path: str, consent: dict[str, str]) -> Iterator[Violation]:
    if set(consent) - {"adUserData", "adPersonalization"} or not set(consent.values()) <= _STATUSES:
        yield path, "INVALID_ENUM_VALUE"


def error(status: int, code: str, violations: list[Violation], *, reason: str = "", **headers: str) -> web.Response:
    """An error in Google's shape."""
    details: list[dict[str, Any]] = []
    if reason:
        info = "type.googleapis.com/google.rpc.ErrorInfo"
        details.append({"@type": info, "reason": reason, "domain": "datamanager.googleapis.com"})
    if violations:
        found = [
            {"field": path, "description": "The value ada@example.com is not valid.", "reason": why}
            for path, why in violations
        ]
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": found})
    body = {"error": {"code": status, "message": "There was a problem.", "status": code, "details": details}}
    return web.json_response(body, status=status, headers={name.replace("_", "-"): h for name, h in headers.items()})
