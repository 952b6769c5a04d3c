"""How a request goes out: by HTTP, or by its connector where that speaks something else. One answer either way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from headrace.connector import wire
from headrace.plugins.contract import is_delivered
from headrace_sdk import DeleteBatch, EventBatch, Job, Member, MemberBatch, Outcomes, Request, Response
from headrace_sync.outlets.http import AddressRefused, NoAnswer, VendorClient
from headrace_sync.outlets.signing import Signer


class Connector(Protocol):
    """What the plugin host gives for an opened connector (`headrace.plugins.ConnectorInstance`)."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Secrets in the settings, to be masked in reasons."""
        ...

    async def rows(self, members: Sequence[Member]) -> Sequence[wire.MemberRows]:
        """The entries that should be on the list, per member."""
        ...

    async def add_members(self, batch: MemberBatch) -> wire.BuiltBatch:
        """Requests that put rows on the list."""
        ...

    async def remove_members(self, batch: MemberBatch) -> wire.BuiltBatch:
        """Requests that take rows off the list."""
        ...

    async def send_events(self, batch: EventBatch) -> wire.BuiltBatch:
        """Requests that send events."""
        ...

    async def delete(self, batch: DeleteBatch) -> wire.BuiltBatch:
        """Requests that make the vendor forget people."""
        ...

    async def read(self, request: Request, response: Response) -> Outcomes:
        """What an answer means."""
        ...

    async def deliver(self, request: Request, *, timeout_s: float, allow_private: bool) -> wire.Delivery:
        """What came of a request that the connector sends by itself."""
        ...

    async def poll(self, job: Job) -> Request:
        """A request that asks how a job stands."""
        ...

    async def close(self) -> None:
        """Forget the connector."""
        ...


async def send(
    request: Request,
    *,
    info: wire.ConnectorInfo,
    connector: Connector,
    signer: Signer,
    client: VendorClient,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Send a request once.

    Args:
        request: As the connector made it.
        info: What the connector is.
        connector: Sends what has one of its schemes.
        signer: Adds the credentials to requests by HTTP.
        client: Sends those.
        headers: Headers to add to those.

    Raises:
        PluginError: The connector failed; unless the error says `untried`, the request may have arrived.
        AddressRefused, NoAnswer: As for VendorClient.send.
        CredentialsRefused, TokenUnavailable, PyMongoError: As for Signer.send.
    """
    if not is_delivered(request, info.schemes):
        return await signer.send(client, request, timeout_s=info.timeout_s, headers=headers)
    found = await connector.deliver(request, timeout_s=info.timeout_s, allow_private=client.allow_private)
    if found.refused:
        raise AddressRefused(found.refused)
    if found.response is None:
        raise NoAnswer(found.unsent or found.lost, sent=bool(found.lost))
    return found.response
