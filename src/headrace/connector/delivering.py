"""A connector that delivers by itself: its client is opened when it is needed first, guarded, timed and closed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from headrace.connector import wire
from headrace.connector.guard import PRIVATE, Permit, permitted
from headrace_sdk import Destination, Response, TransientError

LONGEST_ANSWER = 1 << 20
"""Bytes of an answer's body that are kept."""
_LONGEST_CLOSE_S = 5.0


class Deliverer:
    """The I/O of one instance."""

    def __init__(self, connector: Destination[Any]) -> None:
        """Take an instance; nothing is connected yet."""
        self._connector = connector
        self._permit = Permit()
        self._opening = asyncio.Lock()
        self._is_open = False

    async def deliver(self, asked: wire.ToDeliver) -> wire.Delivery:
        """Send a request.

        Raises:
            Exception: What the connector raises beyond its contract.
        """
        self._permit.allow_private = asked.allow_private
        refusals = self._permit.refusals
        with permitted(self._permit):
            try:
                delivery = await self._within(asked)
            except Exception:
                if self._permit.refusals == refusals:
                    raise
                return wire.Delivery(refused=PRIVATE)
        failed = delivery.response is None or delivery.response.status >= 500
        if failed and self._permit.refusals > refusals:
            return wire.Delivery(refused=PRIVATE)
        return delivery

    async def close(self) -> None:
        """Close the client, as far as that is possible in some seconds."""
        with permitted(self._permit):
            async with asyncio.timeout(_LONGEST_CLOSE_S):
                await self._connector.close()

    async def _within(self, asked: wire.ToDeliver) -> wire.Delivery:
        """Send a request within its time."""
        sending = False
        try:
            async with asyncio.timeout(asked.timeout_s):
                await self._open()
                sending = True
                response = await self._connector.deliver(asked.request)
        except TransientError as error:
            return wire.Delivery(unsent=error.reason)
        except TimeoutError:
            if not sending:
                return wire.Delivery(unsent=f"no connection within {asked.timeout_s:g} s")
            return wire.Delivery(lost=f"no answer within {asked.timeout_s:g} s")
        if not isinstance(response, Response):
            raise TypeError(f"deliver returned a {type(response).__name__}, not a Response")
        return wire.Delivery(
            response=Response(
                status=response.status,
                headers=response.headers,
                body=response.body[:LONGEST_ANSWER],
                received_at_us=response.received_at_us,
            )
        )

    async def _open(self) -> None:
        async with self._opening:
            if self._is_open:
                return
            try:
                await self._connector.connect()
            except BaseException:
                # Why there is no connection is told; that a half-open client does not close is a consequence.
                with contextlib.suppress(Exception):
                    await self._connector.close()
                raise
            self._is_open = True
