"""Alerts: kept in the store until the receiver took them, so that none is lost with a process or an outage.

Who is told is looked up when it is told, so that a receiver that is changed or repaired gets what waits.

The collection `sync_alerts`: _id of the happening, kind, w workspace, d key of the destination that it concerns, name
of the resource, r reason, plan, c made, na from when it may be sent (absent once it was), n tries, x when it expires.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database, Document
from headrace.storage.sealing import SealError
from headrace.telemetry import logs, metrics
from headrace_sync.alerts.hooks import Hook, Hooks
from headrace_sync.alerts.message import Alert, AlertKind, request_of
from headrace_sync.config import DestinationConfig, workspace_of
from headrace_sync.leases import Lease, Leases
from headrace_sync.outlets.backoff import delay_us
from headrace_sync.outlets.http import AddressRefused, NoAnswer, VendorClient
from headrace_sync.store import ALERTS

log = logs.get_logger(__name__)

_sent = metrics.counter("headrace_alerts", "Alerts by kind and outcome.")

_KEPT = timedelta(days=7)
_LOOK_EVERY_S = 1.0
_AT_ONCE = 100
_TIMEOUT_S = 10.0
_BASE_S = 2.0
_CAP_S = 600.0
_NOBODY = Hook("", "")


class Alerts:
    """Keeps alerts, and tells them to the receiver."""

    def __init__(self, db: Database, client: VendorClient, leases: Leases, hooks: Hooks) -> None:
        """Send alerts.

        Args:
            db: Keeps them.
            client: Sends them, guarded like requests to vendors.
            leases: One process sends at a time.
            hooks: Who is told; what nobody would be told is not kept.
        """
        self._alerts = db[ALERTS]
        self._client = client
        self._leases = leases
        self._hooks = hooks

    async def add(self, destination_key: str, alert: Alert) -> None:
        """Keep an alert to be told; the same happening is told once.

        Args:
            destination_key: The destination that it concerns, also of alerts about a sync.
            alert: The alert.

        Raises:
            pymongo.errors.PyMongoError: The store does not answer.
        """
        if self._hook(destination_key) == _NOBODY:
            return
        document: Document = {
            "_id": alert.id,
            "kind": alert.kind.value,
            "w": workspace_of(destination_key),
            "d": destination_key,
            "name": alert.resource,
            "r": alert.reason,
            "plan": alert.plan_id,
            "c": alert.at_us,
            "na": alert.at_us,
            "n": 0,
            "x": datetime.now(UTC) + _KEPT,
        }
        try:
            await self._alerts.insert_one(document)
        except DuplicateKeyError:
            return

    async def run(self) -> None:
        """Tell alerts until cancelled."""
        while True:
            async with self._leases.hold("alerts") as lease:
                if lease is not None:
                    await self.tell(lease)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def tell(self, lease: Lease) -> None:
        """Send what is due; what is not taken is tried again later under the same id.

        Each receiver gets its alerts oldest first, and one that is away keeps no other waiting: after the first that it
        does not take the rest of its alerts is put off with it.
        """
        due = self._alerts.find({"na": {"$gt": 0, "$lte": now_us()}}).sort("c", ASCENDING).limit(_AT_ONCE)
        waiting: dict[Hook | None, list[Document]] = {}
        async for document in due:
            waiting.setdefault(self._hook(document.get("d", "")), []).append(document)
        await asyncio.gather(*(self._tell(hook, documents, lease) for hook, documents in waiting.items()))

    async def _tell(self, hook: Hook | None, documents: Sequence[Document], lease: Lease) -> None:
        """Send the alerts of one receiver."""
        problem = ""
        for document in documents:
            lease.check()
            problem = problem or await self._send(hook, document)
            change: Document = {"$unset": {"na": ""}}
            if problem:
                log.warning("an alert was not taken and is sent again", alert=document["_id"], problem=problem)
                wait_us = delay_us(document["n"] + 1, base_s=_BASE_S, cap_s=_CAP_S, draw=random.random())  # noqa: S311
                change = {"$set": {"na": now_us() + wait_us}, "$inc": {"n": 1}}
            await self._alerts.update_one({"_id": document["_id"]}, change)
            _sent.add(1, {"kind": document["kind"], "outcome": "again" if problem else "told"})

    def _hook(self, destination_key: str) -> Hook | None:
        """The receiver of what concerns a destination; None when its key cannot be opened."""
        try:
            return self._hooks.of(destination_key)
        except SealError:
            log.exception("the key of a receiver of alerts cannot be opened")
            return None

    async def _send(self, hook: Hook | None, document: Document) -> str:
        """Send an alert; returns why it was not taken. What nobody is to be told any more counts as taken."""
        if hook is None:
            return "the key of the receiver cannot be opened"
        if hook == _NOBODY:
            return ""
        alert = Alert(
            document["_id"],
            AlertKind(document["kind"]),
            document["name"],
            document["r"],
            document["c"],
            document["plan"],
        )
        request = request_of(alert, url=hook.url, secret=hook.secret, now_us=now_us())
        try:
            response = await self._client.send(request, timeout_s=_TIMEOUT_S)
        except (AddressRefused, NoAnswer) as error:
            return str(error)
        return "" if 200 <= response.status < 300 else f"HTTP {response.status}"


def unauthorized(destination: DestinationConfig, reason: str) -> Alert:
    """A destination is stopped, at a revision of its settings."""
    # One that was deleted and made anew has its name and counts its revisions from the beginning.
    id = f"{destination.name}:unauthorized:{destination.created_us}:{destination.revision}"
    return Alert(id, AlertKind.DESTINATION_UNAUTHORIZED, destination.name, reason, now_us())


def breaker_opened(name: str, since_us: int) -> Alert:
    """A destination does not answer since a moment."""
    # All replicas notice it within seconds of each other: one alert for each ten minutes of an outage.
    id = f"{name}:breaker:{since_us // (600 * SECOND_US)}"
    return Alert(id, AlertKind.BREAKER_OPENED, name, "the destination does not answer", since_us)


def approval_needed(name: str, plan_id: str, reason: str) -> Alert:
    """A list sync waits for approval."""
    return Alert(f"{name}:plan:{plan_id}", AlertKind.APPROVAL_NEEDED, name, reason, now_us(), plan_id)
