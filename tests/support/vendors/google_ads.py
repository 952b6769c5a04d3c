"""A vendor that keeps the documented rules of the Google Ads API's conversion uploads.

https://developers.google.com/google-ads/api/docs/conversions/upload-offline and the reference pages of the messages;
names and error codes are those of the published protobuf (google-ads).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d")
_ACTION = re.compile(r"customers/\d+/conversionActions/(\d+)")
_CLICK_IDS = frozenset({"gclid", "gbraid", "wbraid"})
_CLICK = _CLICK_IDS | {
    "conversionAction", "conversionDateTime", "conversionValue", "currencyCode", "orderId", "customVariables",
    "cartData", "userIdentifiers", "conversionEnvironment", "consent", "customerType", "externalAttributionData",
}  # fmt: skip
_CALL = frozenset(
    {
        "callerId", "callStartDateTime", "conversionAction", "conversionDateTime", "conversionValue", "currencyCode",
        "customVariables", "consent",
    }
)  # fmt: skip
_ADJUSTMENT = frozenset(
    {
        "gclidDateTimePair", "orderId", "conversionAction", "adjustmentDateTime", "adjustmentType", "restatementValue",
        "userIdentifiers", "userAgent",
    }
)  # fmt: skip
MOST = 2_000
_ECHOED = frozenset(
    {
        "gclid", "gbraid", "wbraid", "conversionAction", "conversionDateTime", "userIdentifiers", "callerId",
        "callStartDateTime", "gclidDateTimePair", "orderId", "adjustmentDateTime", "adjustmentType",
    }
)  # fmt: skip
"""What ClickConversionResult, CallConversionResult and ConversionAdjustmentResult repeat; Google indents its JSON."""

Found = tuple[str, str]
"""Error code and field."""


@dataclass
class FakeGoogleAds:
    """The vendor. Point base_url and token_url of a destination at it, look at what it counted."""

    refresh_token: str = "refresh-for-tests"
    developer_token: str = "developer-for-tests"
    account: str = "1234567890"
    manager: str = "9876543210"
    actions: dict[str, str] = field(default_factory=lambda: {"11": "click", "12": "call", "13": "webpage"})
    versions: frozenset[str] = frozenset({"v23", "v24", "v25", "v26"})
    counted: list[dict[str, Any]] = field(default_factory=list)
    """Conversions and adjustments that were taken."""
    too_recent: set[str] = field(default_factory=set)
    """Click ids of clicks that are less than six hours old."""
    accepts_contact_data: bool = True
    failures: deque[web.Response] = field(default_factory=deque)
    requests: list[tuple[str, int]] = field(default_factory=list)
    """Method and number of conversions of each upload."""
    tokens: set[str] = field(default_factory=set)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/token", self._token)
        app.router.add_post("/{version}/customers/{customer:[0-9]+}/googleAds:search", self._search)
        app.router.add_post("/{version}/customers/{target:[0-9]+:upload[A-Za-z]+}", self._upload)
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
        if form.get("refresh_token") != [self.refresh_token] or form.get("client_secret") != ["hush"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        token = f"ya29.test-{len(self.tokens)}"
        self.tokens.add(token)
        return web.json_response({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _refused(self, request: web.Request, customer: str) -> web.Response | None:
        """What keeps a request from being looked at."""
        if self.failures:
            return self.failures.popleft()
        if request.match_info["version"] not in self.versions:
            return web.Response(status=404, text="<html>Not Found</html>", content_type="text/html")
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return failed(401, "UNAUTHENTICATED", {"authenticationError": "OAUTH_TOKEN_INVALID"})
        if request.headers.get("developer-token") != self.developer_token:
            return failed(401, "UNAUTHENTICATED", {"authenticationError": "DEVELOPER_TOKEN_INVALID"})
        if customer != self.account or request.headers.get("login-customer-id", self.manager) != self.manager:
            return failed(403, "PERMISSION_DENIED", {"authorizationError": "USER_PERMISSION_DENIED"})
        return None

    async def _search(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, request.match_info["customer"]):
            return refused
        query = json.loads(await request.read())["query"]
        asked = re.fullmatch(
            r"SELECT [a-z_., ]+ FROM conversion_action WHERE conversion_action\.id IN \(([\d, ]+)\)", query
        )
        if not asked:
            return failed(400, "INVALID_ARGUMENT", {"queryError": "UNEXPECTED_INPUT"})
        numbers = [one for one in asked[1].split(", ") if one in self.actions]
        rows = [{"conversionAction": {"id": one, "status": "ENABLED"}} for one in numbers]
        return web.json_response({"results": rows} if rows else {})

    async def _upload(self, request: web.Request) -> web.Response:
        customer, _, method = request.match_info["target"].partition(":")
        if refused := self._refused(request, customer):
            return refused
        member = "conversionAdjustments" if method == "uploadConversionAdjustments" else "conversions"
        body = json.loads(await request.read())
        uploads = body.get(member)
        if not isinstance(uploads, list) or not uploads or set(body) - {member, "partialFailure", "validateOnly"}:
            return failed(400, "INVALID_ARGUMENT", {"requestError": "UNKNOWN"})
        if body.get("partialFailure") is not True:
            return failed(400, "INVALID_ARGUMENT", {"mutateError": "PARTIAL_FAILURE_MODE_REQUIRED"})
        if len(uploads) > MOST:
            return failed(400, "INVALID_ARGUMENT", {"conversionUploadError": "TOO_MANY_CONVERSIONS_IN_REQUEST"})
        self.requests.append((method, len(uploads)))
        check = {
            "uploadClickConversions": self._click, "uploadCallConversions": self._call,
            "uploadConversionAdjustments": self._adjustment,
        }[method]  # fmt: skip
        results, errors = [], []
        kind = "conversionAdjustmentUploadError" if member == "conversionAdjustments" else "conversionUploadError"
        spelled = "conversion_adjustments" if member == "conversionAdjustments" else "conversions"
        for place, upload in enumerate(uploads):
            problem = next(check(upload), None) or next(self._common(upload), None)
            if problem:
                path = [{"fieldName": spelled, "index": place}, {"fieldName": problem[1]}]
                errors.append(
                    {
                        "errorCode": {kind: problem[0]},
                        "message": "The value ada@example.com is not right.",
                        "trigger": {"stringValue": "ada@example.com"},
                        "location": {"fieldPathElements": path},
                    }
                )
            elif not body.get("validateOnly"):
                self.counted.append(upload)
            results.append({} if problem else {name: upload[name] for name in _ECHOED & set(upload)})
        answer: dict[str, Any] = {} if body.get("validateOnly") else {"results": results, "jobId": "1"}
        if errors:
            failure = {
                "@type": "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure",
                "errors": errors,
            }
            answer["partialFailureError"] = {"code": 3, "message": "Multiple errors", "details": [failure]}
        return web.Response(text=json.dumps(answer, indent=2), content_type="application/json")

    def _common(self, upload: dict[str, Any]) -> Iterator[Found]:
        action = _ACTION.fullmatch(upload.get("conversionAction", ""))
        if not action or action[1] not in self.actions:
            yield "NO_CONVERSION_ACTION_FOUND", "conversion_action"
        for name, value in upload.items():
            if name.endswith("DateTime") and not _TIME.fullmatch(value):
                yield "UNKNOWN", "conversion_date_time"
        consent = upload.get("consent", {})
        if set(consent) - {"adUserData"} or not set(consent.values()) <= {"GRANTED", "DENIED", "UNSPECIFIED"}:
            yield "UNKNOWN", "consent"
        value = upload.get("conversionValue", 0)
        if not isinstance(value, int | float) or not re.fullmatch("[A-Z]{3}", upload.get("currencyCode", "EUR")):
            yield "UNKNOWN", "conversion_value"
        for variable in upload.get("customVariables", []):
            if not re.fullmatch(r"customers/\d+/conversionCustomVariables/\d+", variable["conversionCustomVariable"]):
                yield "CUSTOM_VARIABLE_NOT_ENABLED", "custom_variables"

    def _click(self, upload: dict[str, Any]) -> Iterator[Found]:
        if set(upload) - _CLICK:
            yield "UNKNOWN", "conversions"
        clicks = _CLICK_IDS & set(upload)
        if {"gbraid", "wbraid"} <= clicks:
            yield "GBRAID_WBRAID_BOTH_SET", "gbraid"
        if not clicks and not upload.get("userIdentifiers"):
            yield "UNPARSEABLE_GCLID", "gclid"
        if upload.get("userIdentifiers") and not self.accepts_contact_data:
            yield "CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS", "user_identifiers"
        yield from _identifiers(upload, frozenset({"hashedEmail", "hashedPhoneNumber"}))
        if any(upload[name] in self.too_recent for name in clicks):
            yield "TOO_RECENT_EVENT", "gclid"
        if not {"conversionAction", "conversionDateTime"} <= set(upload):
            yield "UNKNOWN", "conversion_date_time"
        for one in self.counted:
            same_action = one["conversionAction"] == upload.get("conversionAction")
            if same_action and "orderId" in upload and one.get("orderId") == upload["orderId"]:
                yield "ORDER_ID_ALREADY_IN_USE", "order_id"
            if clicks and all(one.get(name) == upload.get(name) for name in (*clicks, "conversionDateTime")):
                yield "CLICK_CONVERSION_ALREADY_EXISTS", "conversion_date_time"

    def _call(self, upload: dict[str, Any]) -> Iterator[Found]:
        if set(upload) - _CALL or not {"callStartDateTime", "conversionDateTime"} <= set(upload):
            yield "UNKNOWN", "conversions"
        if not re.fullmatch(r"\+[1-9]\d{6,14}", upload.get("callerId", "")):
            yield "UNPARSEABLE_CALLERS_PHONE_NUMBER", "caller_id"

    def _adjustment(self, upload: dict[str, Any]) -> Iterator[Found]:
        kind = upload.get("adjustmentType")
        if set(upload) - _ADJUSTMENT or kind not in ("ENHANCEMENT", "RESTATEMENT", "RETRACTION"):
            yield "UNKNOWN", "adjustment_type"
        if kind == "ENHANCEMENT":
            if not upload.get("orderId"):
                yield "MISSING_ORDER_ID_FOR_WEBPAGE", "order_id"
            if not upload.get("userIdentifiers"):
                yield "INVALID_USER_IDENTIFIER", "user_identifiers"
            yield from _identifiers(upload, frozenset({"hashedEmail", "hashedPhoneNumber", "addressInfo"}))
            if any(
                one.get("orderId") == upload.get("orderId") and one.get("adjustmentType") == kind
                for one in self.counted
            ):
                yield "CONVERSION_ALREADY_ENHANCED", "order_id"
            return
        if {"userIdentifiers", "userAgent"} & set(upload) or "adjustmentDateTime" not in upload:
            yield "UNKNOWN", "user_identifiers"
        if ("orderId" in upload) == ("gclidDateTimePair" in upload):
            yield "GCLID_DATE_TIME_PAIR_AND_ORDER_ID_BOTH_SET", "order_id"
        if ("restatementValue" in upload) != (kind == "RESTATEMENT"):
            yield "UNKNOWN", "restatement_value"


def _identifiers(upload: dict[str, Any], kinds: frozenset[str]) -> Iterator[Found]:
    found = upload.get("userIdentifiers", [])
    if len(found) > 5:
        yield "INVALID_USER_IDENTIFIER", "user_identifiers"
    for one in found:
        given = set(one) - {"userIdentifierSource"}
        if len(given) != 1 or not given <= kinds or one.get("userIdentifierSource") != "FIRST_PARTY":
            yield "UNSUPPORTED_USER_IDENTIFIER", "user_identifiers"
            return
        address = one.get("addressInfo", {})
        hashed = [one.get("hashedEmail"), one.get("hashedPhoneNumber")]
        hashed += [value for name, value in address.items() if name.startswith("hashed")]
        if not all(_SHA256.fullmatch(digest) for digest in hashed if digest is not None):
            yield "INVALID_USER_IDENTIFIER", "user_identifiers"


def failed(status: int, code: str, error_code: dict[str, str], *, as_list: bool = False, **more: Any) -> web.Response:
    """An error of a whole request in Google's shape."""
    failure = {
        "@type": "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure",
        "errors": [{"errorCode": error_code, "message": "Something about ada@example.com.", **more}],
    }
    body = {"error": {"code": status, "message": "There was a problem.", "status": code, "details": [failure]}}
    return web.json_response([body] if as_list else body, status=status)
