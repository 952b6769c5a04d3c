"""The Slack destination: a message per event, by an incoming webhook or as a bot.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
https://docs.slack.dev/reference/methods/chat.postMessage
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from headrace_destination_slack import answers, messages
from headrace_destination_slack.settings import SlackSettings
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    Destination,
    EventBatch,
    EventItem,
    Idempotency,
    Manifest,
    Note,
    Outcomes,
    RateLimit,
    Request,
    Response,
    Skip,
)
from headrace_sdk.auth import Bearer

MANIFEST = Manifest(
    name="slack",
    title="Slack",
    description="Posts a message per event to a channel.",
    factory="headrace_destination_slack.destination:Slack",
    settings=SlackSettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.CHECK}),
    fields=messages.FIELDS,
    batch=BatchPolicy(max_items=10, max_bytes=200_000, max_wait_s=0.2),
    limits=(RateLimit(count=1, per_s=1.0),),
    concurrency=1,
    idempotency=Idempotency.NONE,
    auth=Bearer(setting="bot_token"),
    not_deleted="All messages: a member of the Slack workspace has to delete them.",
)


class Slack(Destination[SlackSettings]):
    """Posts messages to a channel."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """A request per event: Slack takes one message at a time."""
        for place, event in enumerate(batch.events):
            yield from self._event(place, event)

    def read(self, request: Request, response: Response) -> Outcomes:
        """What Slack's answer means, see `answers`."""
        if self.settings.webhook_url is not None:
            return answers.read_webhook(request, response)
        own_channel = json.loads(request.body)["channel"] != self.settings.channel
        return answers.read_web_api(request, response, own_channel=own_channel)

    def check(self) -> Iterable[Check]:
        """Whose the bot token is. A webhook cannot be asked anything without posting."""
        if self.settings.bot_token is not None:
            yield Check(title="The bot token works", request=self._web_api("auth.test", {}, ()))

    def read_check(self, check: Check, response: Response) -> str:
        """What Slack says of the bot token."""
        return answers.read_check(response)

    def _event(self, place: int, event: EventItem) -> Iterable[Built]:
        spoken = event.name or event.kind
        template = self.settings.messages.get(spoken, self.settings.message)
        name = self.settings.event_names.get(spoken, spoken)
        if not template.strip() or not name.strip():
            yield Skip(item=place, reason="the settings leave the event out")
            return
        text, is_cut = self._text(name, template, event)
        if not text:
            yield Skip(item=place, reason="the message is empty", field="text")
            return
        body: dict[str, Any] = {"text": text, "unfurl_links": self.settings.unfurl_links}
        if self.settings.webhook_url is not None:
            yield _request(self.settings.webhook_url.get_secret_value(), body, (place,))
        elif channel := _word(event.fields.get("channel")) or self.settings.channel:
            yield self._web_api("chat.postMessage", {"channel": channel, **body}, (place,))
        else:
            yield Skip(item=place, reason="has no channel, and the settings name none", field="channel")
            return
        if is_cut:
            yield Note(item=place, reason=f"the message is cut to the {messages.LONGEST:,} characters that Slack takes")

    def _text(self, name: str, template: str, event: EventItem) -> tuple[str, bool]:
        own = event.fields.get("text")
        if isinstance(own, str) and own.strip():
            return messages.cut(messages.escaped(own.strip()))
        return messages.render(template, {**event.fields, "event": name})

    def _web_api(self, method: str, body: Mapping[str, Any], items: tuple[int, ...]) -> Request:
        return _request(f"{self.settings.base_url}/{method}", body, items)


def _request(url: str, body: Mapping[str, Any], items: tuple[int, ...]) -> Request:
    return Request(
        method="POST",
        url=url,
        headers={"Content-Type": "application/json; charset=utf-8"},
        body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
        items=items,
    )


def _word(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
