"""The LinkedIn Conversions API destination: events become conversions of the customer's conversion rules.

https://learn.microsoft.com/en-us/linkedin/marketing/integrations/ads-reporting/conversions-api
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from headrace_destination_linkedin_conversions import answers, people
from headrace_destination_linkedin_conversions.fields import FIELDS, FINDING
from headrace_destination_linkedin_conversions.settings import VERSION_ENDS, LinkedInConversionsSettings
from headrace_sdk import (
    ApiVersions,
    BatchPolicy,
    Built,
    Capability,
    Check,
    Destination,
    EventBatch,
    EventItem,
    Idempotency,
    Manifest,
    Normalised,
    Note,
    Outcomes,
    RateLimit,
    Request,
    Response,
    Skip,
)
from headrace_sdk.auth import Bearer
from headrace_sdk.commerce import amount, currency, event_name, text

MAX_EVENTS = 5_000
OLDEST_US = 90 * 86_400 * 1_000_000

MANIFEST = Manifest(
    name="linkedin-conversions",
    title="LinkedIn Conversions API",
    description="Sends events as conversions of your conversion rules. E-mail addresses are sent as SHA-256.",
    factory="headrace_destination_linkedin_conversions.destination:LinkedInConversions",
    settings=LinkedInConversionsSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.CHECK}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=MAX_EVENTS, max_bytes=6_000_000, max_wait_s=1.0),
    limits=(RateLimit(count=600, per_s=60.0),),
    timeout_s=60.0,
    idempotency=Idempotency.KEY,
    auth=Bearer(setting="access_token"),
    versions=ApiVersions(setting="api_version", ends=VERSION_ENDS),
    any_of=(FINDING,),
    not_deleted="Conversions for up to 180 days: the Conversions API deletes nothing, LinkedIn erases them then.",
)


class LinkedInConversions(Destination[LinkedInConversionsSettings]):
    """Sends events to conversion rules of LinkedIn."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """POST of up to 5,000 conversions."""
        items: list[int] = []
        elements: list[dict[str, Any]] = []
        for place, event in enumerate(batch.events):
            rule, reason = self._rule_of(event)
            if not reason and 0 < event.timestamp_us < batch.now_us - OLDEST_US:
                reason = "is older than the 90 days that LinkedIn takes"
            user, problems = people.user_of(event.fields)
            if not reason and not user:
                reason = problems[0] if problems else "has nothing by which LinkedIn could find the person"
            if reason:
                yield Skip(item=place, reason=reason)
                continue
            made = _conversion(rule, event, user, batch.now_us)
            if "conversionValue" not in made and amount(event.fields.get("value")) is not None:
                problems.append("value, as it has no currency")
            if problems:
                yield Note(item=place, reason=f"left out: {'; '.join(problems)}")
            items.append(place)
            elements.append(made)
            if len(items) == MAX_EVENTS:
                yield self._request(items, elements)
                items, elements = [], []
        if items:
            yield self._request(items, elements)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What LinkedIn's answer means, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """The conversion rules of the ad account, if the settings name it."""
        if self.settings.account_id:
            account = f"urn%3Ali%3AsponsoredAccount%3A{self.settings.account_id}"
            yield Check(
                title="May read the conversion rules of the ad account, and they are of the Conversions API",
                request=Request(
                    method="GET",
                    url=f"{self.settings.base_url}/rest/conversions?q=account&account={account}",
                    headers=self._headers(),
                    items=(),
                ),
            )

    def read_check(self, check: Check, response: Response) -> str:
        """What is wrong with the rules, or with the token."""
        rules = {self.settings.conversion_rule, *self.settings.conversion_rules.values()} - {""}
        return answers.read_check(response, frozenset(rules))

    def normalise(self, field: str, value: str) -> Normalised:
        """The value as LinkedIn compares it, and as it is sent."""
        return people.normalise(field, value)

    def _rule_of(self, event: EventItem) -> tuple[str, str]:
        """Id of the event's conversion rule, or "" and the reason why it is left out."""
        if event.kind not in ("track", "page", "screen"):
            return "", f"LinkedIn has no {event.kind} events"
        chosen = event_name(event.name, (), self.settings.conversion_rules)
        if chosen == "":
            return "", "the setting conversion_rules leaves it out"
        rule = chosen or (self.settings.conversion_rule if event.kind == "track" else "")
        return rule, "" if rule else "has no conversion rule in the settings"

    def _request(self, items: list[int], elements: list[dict[str, Any]]) -> Request:
        return Request(
            method="POST",
            url=f"{self.settings.base_url}/rest/conversionEvents",
            headers={"Content-Type": "application/json", **self._headers(), "X-RestLi-Method": "BATCH_CREATE"},
            body=json.dumps({"elements": elements}, ensure_ascii=False, separators=(",", ":")).encode(
                "utf-8", "replace"
            ),
            items=tuple(items),
        )

    def _headers(self) -> dict[str, str]:
        return {"LinkedIn-Version": self.settings.api_version, "X-Restli-Protocol-Version": "2.0.0"}


def _conversion(rule: str, event: EventItem, user: Mapping[str, Any], now_us: int) -> dict[str, Any]:
    # A sender's clock that is ahead is set back: an event cannot be later than its sending.
    moment_us = min(event.timestamp_us, now_us) if event.timestamp_us > 0 else now_us
    found: dict[str, Any] = {
        "conversion": f"urn:lla:llaPartnerConversion:{rule}",
        "conversionHappenedAt": moment_us // 1_000,
    }
    value, code = amount(event.fields.get("value")), currency(event.fields.get("currency"))
    if value is not None and code:
        found["conversionValue"] = {"currencyCode": code, "amount": format(Decimal(str(value)), "f")}
    found["user"] = dict(user)
    found["eventId"] = text(event.fields.get("event_id")) or event.message_id
    return found
