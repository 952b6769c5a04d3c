"""What users ask vendors through a destination: do its settings work, which lists are there, make a list.

A destination may be asked whatever its state: that it does not work is the commonest reason for asking.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from headrace.api.sync.v1.destination_service_pb2 import DestinationCheckState
from headrace.connector import wire
from headrace.domain.times import now_us
from headrace.plugins.authentication import CredentialsRefused, TokenUnavailable
from headrace.plugins.errors import PluginConfigError, PluginError
from headrace.plugins.host import ConnectorInstance, PluginHost
from headrace.plugins.versions import version_remark
from headrace.rpc.errors import ApiError, unavailable, wrong_state
from headrace.storage.sealing import Sealer
from headrace_sdk import Request, Response, VendorList
from headrace_sync.config import DestinationConfig, sealing_place
from headrace_sync.lists.targets import with_list
from headrace_sync.outlets import sending
from headrace_sync.outlets.http import AddressRefused, NoAnswer, VendorClient
from headrace_sync.outlets.rates import RateLimiter, limits_of
from headrace_sync.outlets.signing import Signer
from headrace_sync.outlets.tokens import TokenStore

PASSED = DestinationCheckState.DESTINATION_CHECK_STATE_PASSED
WARNING = DestinationCheckState.DESTINATION_CHECK_STATE_WARNING
FAILED = DestinationCheckState.DESTINATION_CHECK_STATE_FAILED
UNKNOWN = DestinationCheckState.DESTINATION_CHECK_STATE_UNKNOWN


@dataclass(frozen=True, slots=True)
class Checked:
    """How a check ended.

    Attributes:
        title: What was checked.
        state: PASSED, WARNING, FAILED or UNKNOWN.
        problem: What to do about it; empty when it passed.
    """

    title: str
    state: DestinationCheckState.ValueType
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    """A connector opened with a destination's settings, and the way to the vendor."""

    info: wire.ConnectorInfo
    connector: ConnectorInstance
    settings: Mapping[str, Any]
    signer: Signer
    key: str

    def clean(self, text: str) -> str:
        """A text without secrets."""
        return self.connector.mask(text)


class VendorHandlers:
    """Asks vendors."""

    def __init__(
        self, host: PluginHost, sealer: Sealer, tokens: TokenStore, client: VendorClient, limiter: RateLimiter
    ) -> None:
        """Ask through these."""
        self._host = host
        self._sealer = sealer
        self._tokens = tokens
        self._client = client
        self._limiter = limiter

    async def check(self, destination: DestinationConfig, lists: Sequence[str] = ()) -> list[Checked]:
        """Whether a destination works, and the lists that its syncs name.

        Args:
            destination: The destination.
            lists: Of the vendor. Of each is asked what is not asked of the destination anyhow.

        Raises:
            ApiError: FAILED_PRECONDITION when its plugin is not loaded or fails.
        """
        async with self._line(destination) as line:
            found = _version_check(line)
            checks = await line.connector.check() if "check" in line.info.capabilities else ()
            found += [await self._checked(line, check) for check in checks]
        asked = [check.request for check in checks]
        for list_id in lists if asked else ():
            async with self._line(destination, list_id) as line:
                for check in await line.connector.check():
                    if check.request not in asked:
                        one = await self._checked(line, check)
                        found.append(replace(one, title=f"{one.title} ({list_id})"))
        return found or [Checked("The settings are complete", PASSED)]

    async def lists(self, destination: DestinationConfig, page: str) -> wire.FoundLists:
        """A page of the vendor's lists.

        Raises:
            ApiError: FAILED_PRECONDITION when the connector has none to show or the vendor refuses, UNAVAILABLE when it
                does not answer.
        """
        async with self._line(destination) as line:
            self._must_have_lists(line)
            return await self._found(line, await line.connector.lists(page))

    async def create_list(self, destination: DestinationConfig, name: str) -> VendorList:
        """Make a list at the vendor.

        Raises:
            ApiError: As for `lists`.
        """
        async with self._line(destination) as line:
            self._must_have_lists(line)
            found = await self._found(line, await line.connector.create_list(name))
            if len(found.lists) != 1:
                raise wrong_state("VENDOR_REFUSED", "The vendor did not say which list it made.")
            return found.lists[0]

    @asynccontextmanager
    async def _line(self, destination: DestinationConfig, list_id: str = "") -> AsyncIterator[_Line]:
        info = self._host.connectors().get(destination.connector)
        if info is None:
            raise wrong_state("PLUGIN_MISSING", f"The plugin of connector {destination.connector!r} is not loaded.")
        settings = msgspec.json.decode(
            self._sealer.open(destination.sealed, sealing_place(destination.key)), type=dict[str, Any]
        )
        if list_id:
            settings = with_list(info, settings, list_id)
        try:
            connector = await self._host.open(destination.connector, settings)
        except PluginConfigError as error:
            raise wrong_state("SETTINGS_REFUSED", f"The settings cannot work: {error.reason}.") from None
        except PluginError as error:
            raise wrong_state("PLUGIN_FAILED", f"The plugin failed: {error.reason}.") from None
        signer = Signer(destination.key, info.auth, lambda: settings, self._tokens)
        try:
            yield _Line(info, connector, settings, signer, destination.key)
        except PluginError as error:
            raise wrong_state("PLUGIN_FAILED", f"The plugin failed: {error.reason}.") from None
        finally:
            await connector.close()

    async def _ask(self, line: _Line, request: Request) -> Response:
        await self._limiter.acquire(limits_of(line.info, line.key, line.settings))
        return await sending.send(
            request, info=line.info, connector=line.connector, signer=line.signer, client=self._client
        )

    async def _checked(self, line: _Line, check: Any) -> Checked:
        try:
            response = await self._ask(line, check.request)
        except (CredentialsRefused, AddressRefused) as error:
            return Checked(check.title, FAILED, line.clean(str(error)))
        except (TokenUnavailable, NoAnswer) as error:
            return Checked(check.title, UNKNOWN, line.clean(str(error)))
        if response.status >= 500 or response.status == 429:
            return Checked(check.title, UNKNOWN, f"the vendor answered with HTTP {response.status}: check again")
        problem = await line.connector.read_check(check, response)
        return Checked(check.title, FAILED if problem else PASSED, problem)

    async def _found(self, line: _Line, request: Request) -> wire.FoundLists:
        try:
            response = await self._ask(line, request)
        except (CredentialsRefused, AddressRefused) as error:
            raise _refused(line.clean(str(error))) from None
        except (TokenUnavailable, NoAnswer) as error:
            raise unavailable(f"The vendor cannot be asked: {line.clean(str(error))}.") from None
        found = await line.connector.read_lists(request, response)
        if found.problem:
            raise _refused(found.problem)
        return found

    def _must_have_lists(self, line: _Line) -> None:
        if "lists" not in line.info.capabilities:
            reason = f"Connector {line.info.name!r} shows no lists: give the list's id in the settings."
            raise wrong_state("NOT_SUPPORTED", reason)


def _refused(reason: str) -> ApiError:
    return wrong_state("VENDOR_REFUSED", f"The vendor refused: {reason}.")


def _version_check(line: _Line) -> list[Checked]:
    versions = line.info.versions
    if versions is None:
        return []
    title = "The version of the vendor's API"
    now = now_us()
    remark = version_remark(line.info, line.settings, now)
    return [Checked(title, WARNING if remark.warns else PASSED, remark.text)]
