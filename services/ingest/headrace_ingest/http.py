"""The HTTP port as a raw ASGI application: Segment's API, webhooks, settings for browser SDKs, health.

Routing is one look into a dict: a framework's router costs as much as reading a message.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable

import prometheus_client
from opentelemetry.trace import SpanKind
from pymongo.errors import PyMongoError

from headrace.telemetry import spans
from headrace.telemetry.logs import get_logger
from headrace_ingest import http_answers as answers
from headrace_ingest import metrics, sdk_settings
from headrace_ingest.batches import read_batch, write_key_in
from headrace_ingest.committer import NotWritten, QueueFull
from headrace_ingest.http_answers import Answer, Receive, Scope, Send
from headrace_ingest.http_requests import (
    Bodies,
    BodyTooLarge,
    Disconnected,
    Head,
    last_part,
    read_head,
    traceparent_of,
    write_key_of,
)
from headrace_ingest.intake import BATCH, WEBHOOK, Delivery, Intake, new_delivery
from headrace_ingest.messages import KINDS
from headrace_ingest.refusal import Code, Refused
from headrace_ingest.sources import WEBHOOK as WEBHOOK_KIND
from headrace_ingest.sources import WEBSITE, Source, SourceCache

log = get_logger(__name__)

RETRY_AFTER_S = 1
_SHORT = {"i": "identify", "t": "track", "p": "page", "s": "screen", "g": "group", "a": "alias"}
_EVENT_PATHS = {
    **{f"/v1/{kind}": kind for kind in KINDS},
    **{f"/v1/{short}": kind for short, kind in _SHORT.items()},
    "/v1/batch": BATCH,
    "/v1/b": BATCH,
    "/v1/import": BATCH,
    "/beacon/v1/batch": BATCH,
}
_WEBHOOKS = "/webhooks/"
_PROJECTS = "/v1/projects/"
_SETTINGS = "/settings"

Handler = Callable[[Scope, Receive, Send, Head], Awaitable[None]]


class HttpApp:
    """Serves the HTTP port."""

    def __init__(
        self,
        intake: Intake,
        sources: SourceCache,
        bodies: Bodies,
        *,
        is_ready: Callable[[], bool],
        public_url: str = "",
        trusts_proxies: bool = False,
    ) -> None:
        """Serve.

        Args:
            intake: Takes what comes.
            sources: Sources by write key.
            bodies: Reads bodies within limits.
            is_ready: Whether events can be taken now.
            public_url: URL under which browsers reach this port; "" takes the one they asked for.
            trusts_proxies: Whether the client in a request's scope is whom trusted proxies name.
        """
        self._trusts_proxies = trusts_proxies
        self._intake = intake
        self._sources = sources
        self._bodies = bodies
        self._is_ready = is_ready
        self._public_url = public_url
        self._fixed: dict[str, Handler] = {
            "/sourceConfig": self._source_config,
            "/sourceConfig/": self._source_config,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        head = read_head(scope)
        origin = head.origin
        try:
            await self._route(scope, receive, send, head)
        except Answer as answer:
            await answers.failure(send, answer, origin)
        except Refused as refused:
            await answers.failure(send, answers.of_refusal(refused), origin)
        except Disconnected:
            return
        except QueueFull:
            busy = Answer(429, "overloaded", "Too much is waiting: send this again later.", retry_after_s=RETRY_AFTER_S)
            await answers.failure(send, busy, origin)
        except (NotWritten, PyMongoError):
            away = "The event log cannot be written at the moment: nothing was accepted, send this again later."
            await answers.failure(send, Answer(503, "unavailable", away, retry_after_s=RETRY_AFTER_S), origin)
        except Exception:
            error_id = uuid.uuid4().hex
            log.exception("a request failed", error_id=error_id)
            text = f"The service failed; its log has more under the error id {error_id}."
            await answers.failure(send, Answer(500, "internal", text, retry_after_s=RETRY_AFTER_S), origin)

    async def _route(self, scope: Scope, receive: Receive, send: Send, head: Head) -> None:
        path: str = scope["path"]
        kind = _EVENT_PATHS.get(path) or _EVENT_PATHS.get(path.rstrip("/"))
        if kind is None:
            await self._other(path, scope, receive, send, head)
        elif scope["method"] == "POST":
            await self._take(kind, scope, receive, send, head)
        elif scope["method"] == "OPTIONS":
            await self._preflight(scope, send, head)
        else:
            raise Answer(405, "method_not_allowed", "Send events by POST.")

    async def _take(self, kind: str, scope: Scope, receive: Receive, send: Send, head: Head) -> None:
        """Take one message or a batch."""
        key = write_key_of(head, scope)
        source = await self._source(key, head) if key else None
        body = await self._body(scope, receive, head, source, kind)
        try:
            if source is None:
                source = await self._source(write_key_in(self._bodies.unpack(body, head.content_encoding)), head)
            delivery = self._delivery(source, scope, head)
            with spans.child_of(
                traceparent_of(head), f"ingest.{kind}", {"headrace.source": source.id}, kind=SpanKind.SERVER
            ) as traceparent:
                delivery.traceparent = traceparent
                await self._accept(kind, delivery, body, head, send)
        finally:
            self._bodies.release(len(body))

    async def _accept(self, kind: str, delivery: Delivery, body: bytes, head: Head, send: Send) -> None:
        try:
            self._read(kind, delivery, self._bodies.unpack(body, head.content_encoding), head)
        except Refused as refused:
            kept = refused.beginning if isinstance(refused, BodyTooLarge) else body
            self._intake.refuse(delivery, refused, kept, form=kind)
            await self._intake.commit(delivery)
            raise
        await self._intake.commit(delivery)
        if kind != BATCH and delivery.items:
            raise delivery.items[0].refused
        await answers.success(send, head.origin, delivery.items)

    def _read(self, kind: str, delivery: Delivery, body: bytes, head: Head) -> None:
        if not body or body.isspace():
            raise Refused(Code.EMPTY_BODY, "The body is empty.")
        if kind != BATCH:
            self._intake.read_one(delivery, kind, body)
            return
        if not head.traceparent:
            delivery.traceparent = ""  # a trace of its own for each event of the batch
        self._intake.read_batch(delivery, read_batch(body, self._intake.limits))

    async def _webhook(self, scope: Scope, receive: Receive, send: Send, head: Head) -> None:
        if scope["method"] == "OPTIONS":
            await self._preflight(scope, send, head)
            return
        if scope["method"] != "POST":
            raise Answer(405, "method_not_allowed", "Send webhooks by POST.")
        source = await self._sources.by_secret(last_part(scope["path"], _WEBHOOKS).rstrip("/"))
        if source is None or source.kind != WEBHOOK_KIND:
            raise Answer(401, "invalid_token", "The token in the URL is unknown.")
        _check(source, head)
        body = await self._body(scope, receive, head, source, WEBHOOK)
        delivery = self._delivery(source, scope, head)
        try:
            with spans.child_of(
                traceparent_of(head), "ingest.webhook", {"headrace.source": source.id}, kind=SpanKind.SERVER
            ) as traceparent:
                delivery.traceparent = traceparent
                try:
                    plain = self._bodies.unpack(body, head.content_encoding)
                    repeat_id = (head.webhook_id or head.idempotency_key).decode("latin-1").strip()
                    self._intake.read_webhook(delivery, plain, repeat_id)
                except Refused as refused:
                    kept = refused.beginning if isinstance(refused, BodyTooLarge) else body
                    self._intake.refuse(delivery, refused, kept, form=WEBHOOK)
                    await self._intake.commit(delivery)
                    raise
                await self._intake.commit(delivery)
            await answers.success(send, head.origin, delivery.items)
        finally:
            self._bodies.release(len(body))

    def _delivery(self, source: Source, scope: Scope, head: Head) -> Delivery:
        """What a request brings; of what a browser sends the address is looked up, and not kept."""
        delivery = new_delivery(source, content_type=head.content_type.decode("latin-1"))
        country_of = self._intake.country_of
        if source.kind != WEBSITE or country_of is None or not scope["client"]:
            return delivery
        if self._trusts_proxies or not head.forwarded_for:
            delivery.country = country_of(scope["client"][0])
        else:  # the connection is that of a proxy, or the header is made up: better none than a wrong one
            metrics.tally.located(metrics.UNTRUSTED_PROXY)
        return delivery

    async def _body(self, scope: Scope, receive: Receive, head: Head, source: Source | None, form: str) -> bytes:
        """The body as it came; what is too large is refused, and its beginning kept when its source is known."""
        try:
            return await self._bodies.read(receive, head)
        except BodyTooLarge as refused:
            if source is not None:
                delivery = self._delivery(source, scope, head)
                self._intake.refuse(delivery, refused, refused.beginning, form=form)
                await self._intake.commit(delivery)
            raise

    async def _source(self, key: str, head: Head) -> Source:
        if not key:
            raise Answer(401, "missing_write_key", "Give the source's write key, by basic auth as the user name.")
        source = await self._sources.by_secret(key)
        if source is None or source.kind == WEBHOOK_KIND:
            raise Answer(401, "invalid_write_key", "The write key is unknown.")
        _check(source, head)
        return source

    async def _preflight(self, scope: Scope, send: Send, head: Head) -> None:
        """Answer for the source, when the request names it; else the request itself is checked when it comes."""
        key = write_key_of(Head(), scope)
        source = await self._sources.by_secret(key) if key else None
        if source is not None:
            _check(source, head)
        await answers.preflight(send, head.origin or b"*", head.asked_method, head.asked_headers)

    async def _other(self, path: str, scope: Scope, receive: Receive, send: Send, head: Head) -> None:
        if path.startswith(_WEBHOOKS):
            await self._webhook(scope, receive, send, head)
        elif path.startswith(_PROJECTS) and path.endswith(_SETTINGS):
            await self._project_settings(scope, receive, send, head)
        elif path in self._fixed:
            await self._fixed[path](scope, receive, send, head)
        else:
            raise Answer(404, "not_found", "There is nothing at this path.")

    async def _project_settings(self, scope: Scope, _: Receive, send: Send, head: Head) -> None:
        """Settings for Segment's browser SDK."""
        if scope["method"] == "OPTIONS":
            await self._preflight(scope, send, head)
            return
        key = last_part(scope["path"].removesuffix(_SETTINGS), _PROJECTS)
        source = await self._source(key, head)
        body = sdk_settings.for_segment(key, sdk_settings.public_url(self._public_url, scope, head), source)
        await answers.respond(send, 200, body, [*answers.cors(head.origin), (b"cache-control", b"max-age=120")])

    async def _source_config(self, scope: Scope, _: Receive, send: Send, head: Head) -> None:
        """Settings for RudderStack's SDKs."""
        if scope["method"] == "OPTIONS":
            await self._preflight(scope, send, head)
            return
        key = write_key_of(head, scope)
        source = await self._source(key, head)
        body = sdk_settings.for_rudderstack(key, source)
        await answers.respond(send, 200, body, [*answers.cors(head.origin), (b"cache-control", b"max-age=120")])

    async def _healthz(self, _: Scope, __: Receive, send: Send, ___: Head) -> None:
        await answers.respond(send, 200, b'{"status": "ok"}')

    async def _readyz(self, _: Scope, __: Receive, send: Send, ___: Head) -> None:
        if self._is_ready():
            await answers.respond(send, 200, b'{"status": "ready"}')
        else:
            raise Answer(503, "unavailable", "Events cannot be taken at the moment.", retry_after_s=RETRY_AFTER_S)

    async def _metrics(self, _: Scope, __: Receive, send: Send, ___: Head) -> None:
        content_type = prometheus_client.CONTENT_TYPE_LATEST.encode()
        await answers.respond(send, 200, prometheus_client.generate_latest(), content_type=content_type)


def _check(source: Source, head: Head) -> None:
    """Refuse what a source does not take."""
    if source.disabled:
        raise Answer(403, "source_disabled", "The source is disabled.")
    if head.origin and not source.allows_origin(head.origin.decode("latin-1")):
        raise Answer(403, "origin_not_allowed", "The source does not take events from pages of this origin.")
