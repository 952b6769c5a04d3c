"""The way out to one destination: its connector, limits, breaker and requests, shared by deliveries and list passes.

Whatever a connector or a vendor does ends here as one verdict per item; nothing that they do raises out of `send`.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pymongo.errors import PyMongoError

from headrace.connector import wire
from headrace.domain.times import SECOND_US, now_us
from headrace.plugins.authentication import CredentialsRefused, TokenUnavailable
from headrace.plugins.errors import PluginError, PluginErrorKind
from headrace.plugins.masking import mask
from headrace.plugins.render import Rendering, build_all, masked_request
from headrace.telemetry import logs, metrics, spans
from headrace_sdk import EventItem, Job, Member, Request, Response, Row, Subject
from headrace_sync.batching import halves
from headrace_sync.exchanges.recorder import Recorder
from headrace_sync.lists.targets import Place
from headrace_sync.outlets import jobs, sending
from headrace_sync.outlets.batch import Batch, Done, Permit, Taken
from headrace_sync.outlets.breaker import Breaker, BreakerState
from headrace_sync.outlets.http import AddressRefused, NoAnswer, VendorClient
from headrace_sync.outlets.patience import patiently, pause, side_by_side
from headrace_sync.outlets.rates import Limit, RateLimiter
from headrace_sync.outlets.sending import Connector
from headrace_sync.outlets.signing import Signer
from headrace_sync.outlets.tracing import outcome_attributes, traced
from headrace_sync.outlets.verdicts import (
    LONGEST_REASON,
    Kind,
    Verdict,
    of_outcome,
    untried_unless_accepted,
    with_field,
    without_culprits,
)

log = logs.get_logger(__name__)

_LONGEST_THROTTLE_S = 3600.0
_REOPEN_AFTER_S = 15.0
_HALTED_S = 2.0
_REFUSED_S = 300.0
"""After how long a sync's own list is tried again with which the settings could not work."""
_NO_TOKEN_S = 10.0
_ACCEPTED = frozenset({Kind.DELIVERED, Kind.WARNED})

_vendor_seconds = metrics.histogram(
    "headrace_vendor_seconds", "Time of requests to vendors in seconds, by connector and status class."
)
_plugin_failures = metrics.counter("headrace_plugin_failures", "Calls in which a plugin failed, by connector and kind.")


@dataclass(slots=True)
class _Shared:
    """What the outlets to all lists of a destination have in common beside its breaker and limits."""

    not_before: float = 0.0
    halted: bool = False
    draining: bool = False


class Outlet:
    """Sends batches to one destination.

    Attributes:
        place: Where rows of list syncs go, and what of the destination they go by.
        info: What the connector is.
        breaker: Its breaker.
        required_consents: Purposes that a person must have granted before anything about them is sent.
        consents_changed_us: When these last changed; 0 means never.
    """

    def __init__(
        self,
        *,
        info: wire.ConnectorInfo,
        open_connector: Callable[[], Awaitable[Connector]],
        client: VendorClient,
        limiter: RateLimiter,
        limits: Sequence[Limit] = (),
        signer: Signer,
        halt: Callable[[str], Awaitable[None]],
        recorder: Recorder | None = None,
        required_consents: Sequence[str] = (),
        consents_changed_us: int = 0,
        place: Place | None = None,
        open_for_list: Callable[[str], Awaitable[Connector]] | None = None,
    ) -> None:
        """Make the way out.

        Args:
            info: What its connector is.
            open_connector: Opens the connector with the destination's settings; may raise PluginError.
            client: Sends requests.
            limiter: Hands out places of rate limits.
            limits: Those that hold for the destination.
            signer: Adds credentials to requests.
            halt: Called with a reason when the vendor refuses the credentials or the settings cannot work.
            recorder: Keeps requests for the delivery log; None keeps none.
            required_consents: Purposes that a person must have granted.
            consents_changed_us: When these last changed; 0 means never.
            place: Where rows go unless a sync names a list of its own.
            open_for_list: Opens the connector with another list in the settings' place; may raise PluginError.
        """
        self.info = info
        self.place = place or Place()
        self._open_for_list = open_for_list
        self.required_consents = tuple(required_consents)
        self.consents_changed_us = consents_changed_us
        self.breaker = Breaker()
        self._open = open_connector
        self._client = client
        self._limiter = limiter
        self._signer = signer
        self._halt = halt
        self._recorder = recorder
        self._opened: Connector | None = None
        self._opening = asyncio.Lock()
        self._shared = _Shared()
        self._views: dict[str, Outlet] = {}
        self._refused = (0.0, "")
        self._is_view = False
        self._under_way = asyncio.Semaphore(info.concurrency)
        self._limits = limits

    def drain(self) -> None:
        """Start no further request; what is not sent yet ends as UNTRIED."""
        self._shared.draining = True

    async def close(self) -> None:
        """Forget the connector."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()
        for view in self._views.values():
            await view.close()

    def for_list(self, list_id: str) -> Outlet:
        """The way to a list of the destination: with its own connector, and limits and breaker of the destination.

        Settings that cannot work with the list stop nothing but what goes to it.

        Args:
            list_id: The list; empty for the one in the destination's settings.
        """
        if not list_id or list_id == self.place.list_id or self._open_for_list is None:
            return self
        view = self._views.get(list_id)
        if view is None:
            open_for_list = self._open_for_list
            view = self._views[list_id] = copy.copy(self)
            view.place = replace(self.place, list_id=list_id)
            view._open = lambda: open_for_list(list_id)
            view._opened, view._opening, view._views, view._is_view = None, asyncio.Lock(), {}, True
        return view

    def paused_s(self) -> float:
        """Seconds until something may be sent again, by breaker, throttling or a refusal as a whole; 0 when now."""
        if self._shared.halted:
            return _HALTED_S
        until = max(self._shared.not_before, self._refused[0])
        return max(self.breaker.wait_us(now_us()) / SECOND_US, until - time.monotonic(), 0.0)

    @property
    def refusal(self) -> str:
        """Why the list takes nothing, when the settings cannot work with it."""
        return self._refused[1] if self._refused[0] > time.monotonic() else ""

    def is_on_trial(self) -> bool:
        """True while the breaker lets one request through, to see whether the vendor answers again."""
        return self.breaker.state(now_us()) is BreakerState.HALF_OPEN

    async def rows(self, members: Sequence[Member]) -> list[wire.MemberRows | Verdict]:
        """The entries that should be on the list per member, or what kept the plugin from saying so."""
        if not members:
            return []
        try:
            opened = await self._connector()
            return list(await patiently(lambda: opened.rows(members)))
        except PluginError as error:
            return await self._after_plugin_error(
                error, members, self.rows, lambda reason: Verdict(Kind.PLUGIN, reason)
            )

    async def preview(self, operation: str, items: Sequence[tuple[str, Any]]) -> Rendering:
        """The requests for any number of items, as they would be sent, secrets masked; nothing is sent.

        Args:
            operation: ADD_MEMBERS, REMOVE_MEMBERS or SEND_EVENTS.
            items: (id to name the item by, row or event).

        Raises:
            PluginError: The connector cannot be opened, or fails.
        """
        rendering = Rendering()
        if not items:
            return rendering
        opened = await self._connector()

        async def build(part: Sequence[tuple[str, Any]]) -> wire.BuiltBatch:
            batch = Batch(operation, [item for _, item in part], (), None)
            return await patiently(lambda: batch.build(opened, range(len(part))))

        def show(request: Request) -> dict[str, Any]:
            return masked_request(self._signer.show(request), (*opened.secrets, *self._signer.secrets))

        await build_all(rendering, self.info.batch, show, build, items, lambda pair: pair[0])
        return rendering

    async def send(
        self,
        operation: str,
        items: Sequence[EventItem] | Sequence[Row] | Sequence[Subject],
        *,
        traceparents: Sequence[str] = (),
        permit: Permit | None = None,
        done: Done | None = None,
        not_after: float | None = None,
        taken: Taken | None = None,
    ) -> list[Verdict]:
        """Send a batch once.

        Args:
            operation: SEND_EVENTS, ADD_MEMBERS, REMOVE_MEMBERS or DELETE_PEOPLE.
            items: At most the connector's `batch.max_items`.
            traceparents: Trace contexts of the items.
            permit: Asked before each request; items that it leaves out end as GONE.
            done: Told of each verdict as soon as it is known.
            not_after: Moment of the monotonic clock after which nothing may go out any more; the rest ends as UNTRIED.
            taken: Sees to the end of jobs: what the vendor took into one ends as PENDING, or as LOST when it raises.
                Without it their end is waited for.

        Returns:
            One verdict per item.
        """
        with spans.batch_span(f"deliver {self.info.name}", traceparents, {"headrace.operation": operation}):
            places = list(range(len(items)))
            batch = Batch(operation, items, traceparents, permit, done, not_after, taken)
            await self._send_places(batch, places)
            found = [batch.verdicts[place] for place in places]
            rest = [place for place in places if traceparents and place not in batch.traced]
            attributes = [outcome_attributes(found[place]) for place in rest]
            spans.event_spans("deliver", [traceparents[place] for place in rest], attributes)
        return found

    async def _send_places(self, batch: Batch, places: Sequence[int]) -> None:
        """Send the items at these places of the batch, in halves where the plugin fails on them."""
        try:
            opened = await self._connector()
            built = await patiently(lambda: batch.build(opened, places))
        except PluginError as error:

            async def again(part: Sequence[int]) -> list[None]:
                await self._send_places(batch, part)
                return [None] * len(part)

            outcome = await self._after_plugin_error(error, places, again, lambda r: Verdict(Kind.PLUGIN, r))
            for place, verdict in zip(places, outcome, strict=True):
                if verdict is not None:
                    batch.decide(place, verdict)
            return
        for skip in built.skipped:
            reason = self._clean(with_field(skip.reason, skip.field), ())
            batch.decide(places[skip.item], Verdict(Kind.REJECTED if skip.is_failure else Kind.SKIPPED, reason))
        batch.notes |= {places[note.item]: self._clean(note.reason, ()) for note in built.notes}
        parts: list[Sequence[int]] = []
        await side_by_side(
            self._send_requests(opened, requests, [places[i] for i in requests[0].items], batch, parts)
            for requests in _in_turn(built.requests)
        )
        for part in parts:
            await self._send_places(batch, part)

    async def _send_requests(
        self,
        opened: Connector,
        requests: Sequence[Request],
        places: list[int],
        batch: Batch,
        parts: list[Sequence[int]],
    ) -> None:
        """Send a request, or several of one item; what must be sent again at once goes into `parts`."""
        if any(len(request.body) > self.info.batch.max_bytes for request in requests):
            if len(places) > 1:
                parts += halves(places)
            else:
                reason = f"larger than the {self.info.batch.max_bytes:,} bytes that the destination takes"
                batch.decide(places[0], Verdict(Kind.REJECTED, reason))
            return
        found = await self._sent(opened, requests[0], places, batch, is_last=len(requests) == 1)
        for request in requests[1:]:
            if found is None or found[0].kind not in _ACCEPTED:
                break
            remark = found[0]
            found = await self._sent(opened, request, places, self._following(batch), is_last=request is requests[-1])
            if found is not None and found[0].kind is Kind.DELIVERED and remark.kind is Kind.WARNED:
                found = [remark]
        if found is None:
            parts += halves(places)
            return
        secrets = (*opened.secrets, *(secret for request in requests for secret in request.secrets))
        rest = [place for place, verdict in zip(places, found, strict=True) if verdict.kind is Kind.AGAIN]
        if rest:
            parts.append(rest)
        for place, verdict in zip(places, found, strict=True):
            if verdict.kind is not Kind.AGAIN:
                shown = replace(verdict, reason=self._clean(verdict.reason, secrets)) if verdict.reason else verdict
                batch.decide(place, shown)

    async def _sent(
        self, opened: Connector, request: Request, places: list[int], batch: Batch, *, is_last: bool
    ) -> list[Verdict] | None:
        """Send one request and see to the end of its jobs; None when the item at fault must be looked for."""
        async with self._under_way:
            found = await self._exchange(opened, request, places, batch)
        if found is None or all(verdict.kind is not Kind.PENDING for verdict in found):
            return found
        if batch.taken is None or not is_last:
            return await self._follow_jobs(found, places, batch)
        return await self._hand_on(found, places, batch.taken)

    async def _hand_on(self, found: Sequence[Verdict], places: Sequence[int], taken: Taken) -> list[Verdict]:
        """Tell of the jobs into which the vendor took items."""
        verdicts, in_jobs = list(found), dict[str, list[int]]()
        for at, verdict in enumerate(found):
            if verdict.kind is Kind.PENDING:
                in_jobs.setdefault(verdict.reason, []).append(at)
        for job, inside in in_jobs.items():
            first = found[inside[0]]
            left = Verdict(Kind.PENDING, code=first.code, exchange=first.exchange)
            try:
                await taken(job, [places[at] for at in inside], first.after_s or 0.0)
            except PyMongoError:
                log.exception("a vendor's job could not be written down", connector=self.info.name)
                left = replace(left, kind=Kind.LOST, reason="the vendor's job could not be written down")
            for at in inside:
                verdicts[at] = left
        return verdicts

    async def poll(self, job: str, size: int) -> list[Verdict]:
        """Ask once how a job stands.

        Args:
            job: As the vendor knows it.
            size: How many items it holds.

        Returns:
            A verdict per item: PENDING while it runs, with the job to ask for next as its reason; another that is not
            final when nobody could be asked, or the answer could not be read.
        """
        try:
            opened = await self._connector()
            request = await patiently(lambda: opened.poll(Job(id=job, items=size, now_us=now_us())))
        except PluginError as error:
            self._count(error)
            return [Verdict(Kind.PLUGIN, error.reason)] * size
        async with self._under_way:
            # No item goes out: the permit that counts tries has been given.
            alone = Batch("poll", (), (), None)
            found = await self._exchange(opened, request, list(range(size)), alone)
        if found is None:
            return [Verdict(Kind.PLUGIN)] * size
        secrets = (*opened.secrets, *request.secrets)
        return [
            verdict if verdict.kind is Kind.PENDING else replace(verdict, reason=self._clean(verdict.reason, secrets))
            for verdict in found
        ]

    def _following(self, batch: Batch) -> Batch:
        """The batch for a further request of an item: where each try is counted, the first request was counted."""
        return replace(batch, permit=None) if self.info.idempotency == "none" else batch

    async def _exchange(
        self, opened: Connector, request: Request, places: list[int], batch: Batch
    ) -> list[Verdict] | None:
        """Send a request and read the answer; None when the item at fault among several must be looked for."""
        shut_us = self.breaker.wait_us(now_us())
        if not shut_us:  # a place of a limit, which others may share, is for what may go
            await self._wait_for_turn()
        if self._shared.draining:
            return [Verdict(Kind.UNTRIED, after_s=0.0)] * len(places)
        if self._shared.halted:
            return [Verdict(Kind.UNTRIED, "the destination is stopped", after_s=_HALTED_S)] * len(places)
        if self.refusal:
            return [Verdict(Kind.UNTRIED, self.refusal, after_s=_REFUSED_S)] * len(places)
        if batch.not_after is not None and time.monotonic() > batch.not_after:
            return [Verdict(Kind.UNTRIED, "it waited so long that it is made anew", after_s=0.0)] * len(places)
        wait_us = shut_us or self.breaker.admit(now_us())
        if wait_us:
            after_s = wait_us / SECOND_US
            return [Verdict(Kind.UNTRIED, "the destination does not answer", after_s=after_s)] * len(places)
        if batch.permit is not None and len(allowed := await self._permitted(batch.permit, places)) < len(places):
            # What another process took meanwhile must not go out twice; the rest goes with the next batch.
            self.breaker.withdrawn()
            return [Verdict(Kind.UNTRIED, after_s=0.0) if p in allowed else Verdict(Kind.GONE) for p in places]
        started = time.perf_counter()
        status = "none"
        try:
            with traced(self.info.name, request, places, batch) as headers:
                response = await sending.send(
                    request,
                    info=self.info,
                    connector=opened,
                    signer=self._signer,
                    client=self._client,
                    headers=headers,
                )
            status = f"{response.status // 100}xx"
        except PluginError as error:
            self.breaker.withdrawn()
            self._count(error)
            if error.untried or error.kind in (PluginErrorKind.LOAD, PluginErrorKind.CONFIG):
                return await self._nothing_sent(error, places)
            return await self._blamed(error, places, f"the plugin failed: {error.reason}")
        except AddressRefused as refused:
            self.breaker.withdrawn()
            return [Verdict(Kind.REJECTED, str(refused))] * len(places)
        except CredentialsRefused as error:
            self.breaker.withdrawn()
            await self._stop(str(error))
            return [Verdict(Kind.UNTRIED, str(error))] * len(places)
        except (TokenUnavailable, PyMongoError) as error:
            self.breaker.failed(now_us())
            reason = str(error) if isinstance(error, TokenUnavailable) else "the store of access tokens is away"
            return [Verdict(Kind.UNTRIED, reason, after_s=_NO_TOKEN_S)] * len(places)
        except NoAnswer as error:
            self.breaker.failed(now_us())
            unanswered = [Verdict(Kind.LOST if error.sent else Kind.RETRY, error.reason)] * len(places)
            return self._recorded(opened, request, error.reason, unanswered, places, batch)
        except BaseException:
            self.breaker.withdrawn()
            raise
        finally:
            _vendor_seconds.record(time.perf_counter() - started, {"connector": self.info.name, "status": status})
        if response.status >= 500:
            self.breaker.failed(now_us())
        else:
            self.breaker.succeeded()
        verdicts = await self._read(opened, request, response, places)
        return verdicts and self._recorded(opened, request, response, verdicts, places, batch)

    def _recorded(
        self,
        opened: Connector,
        request: Request,
        answer: Response | str,
        verdicts: list[Verdict],
        places: Sequence[int],
        batch: Batch,
    ) -> list[Verdict]:
        """The verdicts, with what is kept of their request."""
        if self._recorder is None:
            return verdicts
        secrets = (*opened.secrets, *self._signer.secrets, *request.secrets)
        items = [batch.items[place] for place in places] if batch.items else ()
        kept = self._recorder.take(request, answer, verdicts, items=items, secrets=secrets)
        return [replace(verdict, exchange=kept) for verdict in verdicts] if kept else verdicts

    async def _follow_jobs(self, found: Sequence[Verdict], places: Sequence[int], batch: Batch) -> list[Verdict]:
        """Ask for the jobs into which the vendor took items, until they end."""

        async def keep(waiting: Sequence[int]) -> set[int]:
            if batch.permit is None:
                return set(waiting)
            kept = await batch.permit([places[at] for at in waiting])
            return {at for at in waiting if places[at] in kept}

        return await jobs.follow(
            found, ask=self.poll, keep=keep, stops=lambda: self._shared.draining or self._shared.halted
        )

    async def _read(
        self, opened: Connector, request: Request, response: Response, places: list[int]
    ) -> list[Verdict] | None:
        code = response.status
        try:
            outcomes = await patiently(lambda: opened.read(request, response))
        except PluginError as error:
            self._count(error)
            return await self._blamed(error, places, f"the plugin could not read the answer: {error.reason}", code)
        refused = outcomes.unauthorized or outcomes.misconfigured
        if refused:
            reason = self._clean(refused, (*opened.secrets, *request.secrets))
            await (self._stop(reason) if outcomes.unauthorized else self._misconfigured(reason))
            return untried_unless_accepted(outcomes.items, code, reason)
        if outcomes.throttle_s is not None:
            self._throttle(outcomes.throttle_s)
        if outcomes.refused_whole and len(places) > 1:
            return without_culprits(outcomes.items, code)
        return [of_outcome(outcome, code) for outcome in outcomes.items]

    async def _nothing_sent(self, error: PluginError, items: Sequence[Any]) -> list[Verdict]:
        """The verdicts when a plugin's failure is nothing that an item could be at fault for."""
        if error.kind is PluginErrorKind.CONFIG:
            reason = self._clean(f"the settings cannot work: {error.reason}", ())
            await self._misconfigured(reason)
            return [Verdict(Kind.UNTRIED, reason)] * len(items)
        if error.kind is PluginErrorKind.LOAD:
            reason = self._clean(f"the plugin cannot be used: {error.reason}", ())
            return [Verdict(Kind.UNTRIED, reason, after_s=_REOPEN_AFTER_S)] * len(items)
        reason = self._clean(f"the plugin is not there at the moment: {error.reason}", ())
        return [Verdict(Kind.UNTRIED, reason, after_s=max(error.retry_after_s, 0.1))] * len(items)

    async def _blamed(
        self, error: PluginError, places: Sequence[int], reason: str, code: int = 0
    ) -> list[Verdict] | None:
        """The verdicts when a plugin failed on items that may have arrived; None to look for the one at fault."""
        if error.kind is PluginErrorKind.LOAD or self.info.idempotency == "none":
            # The vendor has the items: sending them again to find the one at fault would count them twice.
            return [Verdict(Kind.LOST, reason, code)] * len(places)
        if len(places) > 1:
            await pause(error)
            return None
        return [Verdict(Kind.PLUGIN, reason, code)]

    async def _after_plugin_error(
        self,
        error: PluginError,
        items: Sequence[Any],
        again: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]],
        blame: Callable[[str], Verdict],
    ) -> list[Any]:
        """What is to be done after a failed call: halt, wait, or look for the item at fault by halves."""
        self._count(error)
        if error.untried or error.kind in (PluginErrorKind.LOAD, PluginErrorKind.CONFIG):
            return await self._nothing_sent(error, items)
        if len(items) == 1:
            return [blame(self._clean(f"the plugin failed: {error.reason}", ()))]
        await pause(error)
        return [verdict for half in halves(items) for verdict in await again(half)]

    async def _connector(self) -> Connector:
        async with self._opening:
            if self._opened is None:
                self._opened = await self._open()
            return self._opened

    async def _permitted(self, permit: Permit, places: list[int]) -> set[int]:
        try:
            return await permit(places)
        except BaseException:
            self.breaker.withdrawn()
            raise

    async def _wait_for_turn(self) -> None:
        # Nothing signals that time has passed.
        while (wait_s := self._shared.not_before - time.monotonic()) > 0 and not self._shared.draining:  # noqa: ASYNC110
            await asyncio.sleep(min(wait_s, 1.0))
        if not self._shared.draining:
            await self._limiter.acquire(self._limits)

    async def _stop(self, reason: str) -> None:
        """Send nothing more: a changed destination gets a new outlet."""
        if not self._shared.halted:
            self._shared.halted = True
            await self._halt(reason)

    async def _misconfigured(self, reason: str) -> None:
        """Send nothing more, or nothing to a sync's own list for a while: the destination's others go on."""
        if self._is_view:
            self._refused = (time.monotonic() + _REFUSED_S, reason)
        else:
            await self._stop(reason)

    def _throttle(self, asked_s: float) -> None:
        wait_s = min(asked_s, _LONGEST_THROTTLE_S) or random.uniform(0.5, 1.5) * self.info.retry.base_s  # noqa: S311
        self._shared.not_before = max(self._shared.not_before, time.monotonic() + wait_s)

    def _count(self, error: PluginError) -> None:
        _plugin_failures.add(1, {"connector": self.info.name, "kind": error.kind.value})
        log.warning("a plugin failed", connector=self.info.name, kind=error.kind.value, reason=error.reason)

    def _clean(self, reason: str, secrets: Sequence[str]) -> str:
        known = (*(self._opened.secrets if self._opened else ()), *self._signer.secrets, *secrets)
        return mask(reason, known)[:LONGEST_REASON]


def _in_turn(requests: Sequence[Request]) -> list[list[Request]]:
    """The requests, those of the same items together, which are sent one after the other."""
    found: dict[tuple[int, ...], list[Request]] = {}
    for request in requests:
        found.setdefault(request.items, []).append(request)
    return list(found.values())
