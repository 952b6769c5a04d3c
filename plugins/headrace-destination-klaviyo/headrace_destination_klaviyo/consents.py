"""Which subscriptions to marketing a person's consent asks for.

A subscription lifts what Klaviyo holds against a profile (unsubscribed, marked as spam, suppressed), so nobody is
subscribed who did not say so: neither by being on a list nor by an event.
https://developers.klaviyo.com/en/docs/collect_email_and_sms_consent_via_api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_destination_klaviyo import profiles
from headrace_sdk import EventItem

SUBSCRIBED, UNSUBSCRIBED = "SUBSCRIBED", "UNSUBSCRIBED"
JOBS = ((profiles.UNSUBSCRIBE_PATH, UNSUBSCRIBED), (profiles.SUBSCRIBE_PATH, SUBSCRIBED))
"""Paths in the order in which they are asked for: what somebody does not want any more goes first."""


def of_member(fields: Mapping[str, Any]) -> list[str]:
    """The channels by which a member of a list consents to marketing."""
    given = {profiles.EMAIL: fields.get("email_consent"), profiles.SMS: fields.get("sms_consent")}
    return [channel for channel, status in given.items() if _is_granted(status) is True]


def of_event(event: EventItem, email_purpose: str, sms_purpose: str) -> dict[str, list[str]]:
    """The channels that an event asks to subscribe to and to unsubscribe from.

    Only those that it speaks of. Where the person has said otherwise since, as the profile knows, nothing is done.
    """
    stated = _stated(event)
    known = event.profile.consents if event.profile else {}
    found: dict[str, list[str]] = {SUBSCRIBED: [], UNSUBSCRIBED: []}
    for channel, purpose in ((profiles.EMAIL, email_purpose), (profiles.SMS, sms_purpose)):
        said = _is_granted(stated.get(purpose))
        if said is not None and _is_granted(known.get(purpose)) in (said, None):
            found[SUBSCRIBED if said else UNSUBSCRIBED].append(channel)
    return found


def _stated(event: EventItem) -> dict[str, Any]:
    """Purposes of which an event speaks: among its properties, or in the consent of its context."""
    context = event.context.get("consent")
    inner: Mapping[str, Any] = context if isinstance(context, Mapping) else {}
    preferences = inner.get("categoryPreferences")
    return {**(preferences if isinstance(preferences, Mapping) else {}), **inner, **event.properties}


def _is_granted(status: Any) -> bool | None:
    """What a status says; None when it says nothing."""
    if isinstance(status, bool):
        return status
    return {"granted": True, "denied": False}.get(status.strip().lower()) if isinstance(status, str) else None
