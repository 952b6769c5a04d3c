"""The Google Ads conversions destination: click and call conversions and adjustments, by the Google Ads API.

https://developers.google.com/google-ads/api/docs/conversions/upload-offline
https://developers.google.com/google-ads/api/docs/conversions/upload-adjustments
https://developers.google.com/google-ads/api/docs/conversions/enhanced-conversions/web
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from headrace_destination_google_ads_conversions import answers, conversions, people
from headrace_destination_google_ads_conversions.fields import FIELDS
from headrace_destination_google_ads_conversions.settings import VERSION_ENDS, GoogleAdsConversionsSettings, Kind
from headrace_sdk import (
    ApiVersions,
    BatchPolicy,
    Built,
    Capability,
    Check,
    Destination,
    EventBatch,
    Idempotency,
    Manifest,
    Normalised,
    Outcomes,
    RecordRejected,
    Request,
    Response,
    RetryPolicy,
    Skip,
)
from headrace_sdk.auth import OAuth2

MOST_CONVERSIONS = 1_000
"""Google takes 2,000, but its answer repeats the identifiers of each and is cut at 1 MiB."""
_DAY_S = 86_400.0
_SEARCH = "SELECT conversion_action.id, conversion_action.status FROM conversion_action"
_UPLOADS = {
    Kind.CLICK: (":uploadClickConversions", "conversions"),
    Kind.CALL: (":uploadCallConversions", "conversions"),
}
_ADJUSTMENTS = (":uploadConversionAdjustments", "conversionAdjustments")

MANIFEST = Manifest(
    name="google-ads-conversions",
    title="Google Ads conversions",
    description="Reports conversions after clicks and calls, and enhances, restates or retracts them.",
    factory="headrace_destination_google_ads_conversions.destination:GoogleAdsConversions",
    settings=GoogleAdsConversionsSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.CHECK}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=MOST_CONVERSIONS, max_bytes=10_000_000, max_wait_s=5.0),
    concurrency=2,
    # Google takes conversions six hours after the click at the earliest, and adjustments a day after the conversion.
    retry=RetryPolicy(max_age_s=3 * _DAY_S, cap_s=answers.SIX_HOURS_S),
    timeout_s=60.0,
    idempotency=Idempotency.KEY,
    auth=OAuth2(
        token_url="setting:token_url",  # noqa: S106 - the name of a setting
        client_id="client_id",
        client_secret="client_secret",  # noqa: S106 - the name of a setting
        refresh_token="refresh_token",  # noqa: S106 - the name of a setting
    ),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    not_deleted="Conversions: the Google Ads API forgets nobody; they can be retracted one by one.",
)


class GoogleAdsConversions(Destination[GoogleAdsConversionsSettings]):
    """Reports conversions and adjustments to a Google Ads account."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """A request for the clicks, one for the calls and one for the adjustments, up to 1,000 in each."""
        found: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
        for place, event in enumerate(batch.events):
            spoken = event.name if event.kind == "track" else event.kind
            chosen = self.settings.events.get(spoken)
            if chosen is None:
                yield Skip(item=place, reason="the settings do not name the event as a conversion")
                continue
            try:
                made = conversions.conversion_of(event, chosen, self.settings)
            except RecordRejected as error:
                yield Skip(item=place, reason=error.reason, field=error.field)
                continue
            found.setdefault(_UPLOADS.get(chosen.kind, _ADJUSTMENTS), []).append((place, made))
        for (method, member), uploads in found.items():
            for start in range(0, len(uploads), MOST_CONVERSIONS):
                yield self._upload(method, member, uploads[start : start + MOST_CONVERSIONS])

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Google's answer means, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """A search for the conversion actions that the settings name."""
        numbers = ", ".join(self._actions())  # digits alone, as the settings have checked
        query = " ".join((_SEARCH, f"WHERE conversion_action.id IN ({numbers})"))
        yield Check(
            title="The conversion actions are there, and the user may see them",
            request=self._request("/googleAds:search", {"query": query}, ()),
        )

    def read_check(self, check: Check, response: Response) -> str:
        """Which conversion action is missing or off."""
        return answers.read_check(response, self._actions())

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as Google compares it, and as it is sent."""
        return people.normalise(field, value)

    def _actions(self) -> list[str]:
        """Ids of the conversion actions, each once, in order."""
        return sorted({chosen.conversion_action for chosen in self.settings.events.values()}, key=int)

    def _upload(self, method: str, member: str, uploads: list[tuple[int, dict[str, Any]]]) -> Request:
        body: dict[str, Any] = {member: [made for _, made in uploads], "partialFailure": True}
        if self.settings.validate_only:
            body["validateOnly"] = True
        return self._request(method, body, tuple(place for place, _ in uploads))

    def _request(self, method: str, body: Mapping[str, Any], items: tuple[int, ...]) -> Request:
        settings = self.settings
        headers = {
            "Content-Type": "application/json",
            "developer-token": settings.developer_token.get_secret_value(),
        }
        if settings.login_customer_id:
            headers["login-customer-id"] = settings.login_customer_id
        return Request(
            method="POST",
            url=f"{settings.base_url}/{settings.api_version}/customers/{settings.customer_id}{method}",
            headers=headers,
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
            items=items,
        )
