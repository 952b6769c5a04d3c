"""Alerts: kept in the store until the receiver took them, so that none is lost with a process or an outage.

The collection `sync_alerts`: _id of the happening, kind, w workspace, name of the resource, r reason, plan, c made, na
from when it may be sent (absent once it was), n tries, x when it expires.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from headrace.domain.times import SECOND_US, now_us
from headrace.storage.mongo.client import Database, Document
from headrace.telemetry import logs, metrics
from headrace_sync.alerts.message import Alert, AlertKind, request_of
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


class Alerts:
    """Keeps alerts, and tells them to the receiver."""

    def __init__(self, db: Database, client: VendorClient, leases: Leases, *, url: str, secret: str) -> None:
        """Send alerts to a URL.

        Args:
            db: Keeps them.
            client: Sends them, guarded like requests to vendors.
            leases: One process sends at a time.
            url: Where they go; without one nothing is kept.
            secret: Key of the signatures.
        """
        self._alerts = db[ALERTS]
        self._client = client
        self._leases = leases
        self._url = url
        self._secret = secret

    async def add(self, workspace_id: str, alert: Alert) -> None:
        """Keep an alert to be told; the same happening is told once.

        Raises:
            pymongo.errors.PyMongoError: The store does not answer.
        """
        if not self._url:
            return
        document: Document = {
            "_id": alert.id,
            "kind": alert.kind.value,
            "w": workspace_id,
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
            if self._url:
                async with self._leases.hold("alerts") as lease:
                    if lease is not None:
                        await self.tell(lease)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def tell(self, lease: Lease) -> None:
        """Send what is due, oldest first; what is not taken is tried again later under the same id."""
        due = self._alerts.find({"na": {"$gt": 0, "$lte": now_us()}}).sort("c", ASCENDING).limit(_AT_ONCE)
        for document in [d async for d in due]:
            lease.check()
            problem = await self._send(document)
            change: Document = {"$unset": {"na": ""}}
            if problem:
                log.warning("an alert was not taken and is sent again", alert=document["_id"], problem=problem)
                wait_us = delay_us(document["n"] + 1, base_s=_BASE_S, cap_s=_CAP_S, draw=random.random())  # noqa: S311
                change = {"$set": {"na": now_us() + wait_us}, "$inc": {"n": 1}}
            await self._alerts.update_one({"_id": document["_id"]}, change)
            _sent.add(1, {"kind": document["kind"], "outcome": "again" if problem else "told"})

    async def _send(self, document: Document) -> str:
        """Send an alert; returns why it was not taken."""
        alert = Alert(
            document["_id"],
            AlertKind(document["kind"]),
            document["name"],
            document["r"],
            document["c"],
            document["plan"],
        )
        request = request_of(alert, url=self._url, secret=self._secret, now_us=now_us())
        try:
            response = await self._client.send(request, timeout_s=_TIMEOUT_S)
        except (AddressRefused, NoAnswer) as error:
            return str(error)
        return "" if 200 <= response.status < 300 else f"HTTP {response.status}"


def unauthorized(name: str, revision: int, reason: str) -> Alert:
    """A destination is stopped, at a revision of its settings."""
    id = f"{name}:unauthorized:{revision}"
    return Alert(id, AlertKind.DESTINATION_UNAUTHORIZED, name, reason, now_us())


def breaker_opened(name: str, since_us: int) -> Alert:
    """A destination does not answer since a moment."""
    # All replicas notice it within seconds of each other: one alert for each ten minutes of an outage.
    id = f"{name}:breaker:{since_us // (600 * SECOND_US)}"
    return Alert(id, AlertKind.BREAKER_OPENED, name, "the destination does not answer", since_us)


def approval_needed(name: str, plan_id: str, reason: str) -> Alert:
    """A list sync waits for approval."""
    return Alert(f"{name}:plan:{plan_id}", AlertKind.APPROVAL_NEEDED, name, reason, now_us(), plan_id)
