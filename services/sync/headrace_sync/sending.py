"""How a request goes out: by HTTP, or by its connector where that speaks something else. One answer either way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headrace.connector import wire
from headrace.plugins.contract import is_delivered
from headrace_sdk import Request, Response
from headrace_sync.http import AddressRefused, NoAnswer, VendorClient
from headrace_sync.signing import Signer


class Deliverer(Protocol):
    """A connector that can send requests by itself (`headrace.plugins.ConnectorInstance`)."""

    async def deliver(self, request: Request, *, timeout_s: float, allow_private: bool) -> wire.Delivery:
        """What came of a request that the connector sends by itself."""
        ...


async def send(
    request: Request,
    *,
    info: wire.ConnectorInfo,
    connector: Deliverer,
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
