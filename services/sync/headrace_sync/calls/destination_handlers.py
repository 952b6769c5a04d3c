"""What `DestinationService` does: destinations with checked settings and sealed secrets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from headrace.api.sync.v1.destination_service_pb2 import Destination, DestinationState
from headrace.connector import wire
from headrace.domain.times import now_us
from headrace.plugins.errors import PluginConfigError, PluginError, PluginErrorKind, PluginFailure
from headrace.plugins.masking import mask_settings, merge_masked
from headrace.rpc import names
from headrace.rpc.errors import (
    ApiError,
    already_exists,
    etag_mismatch,
    in_use,
    invalid_argument,
    invalid_arguments,
    not_found,
    unavailable,
    wrong_state,
)
from headrace.storage.sealing import Sealer
from headrace_sync.alerts.hooks import checked_hook
from headrace_sync.calls.requests import check_etag, settings_object
from headrace_sync.calls.sync_lists import apart_as_before
from headrace_sync.config import DestinationConfig, key_of, sealing_place
from headrace_sync.outlets.sending import Connector
from headrace_sync.people import consents
from headrace_sync.store import Check, ConfigStore

CHANGEABLE = frozenset({"alert_hook", "display_name", "required_consents", "settings", "state"})
FIXED = frozenset({"name", "connector", "create_time", "update_time", "state_reason", "etag"})

_ACTIVE = DestinationState.DESTINATION_STATE_ACTIVE
_PAUSED = DestinationState.DESTINATION_STATE_PAUSED
_TRIES = 5


class Host(Protocol):
    """What is needed of the plugin host (`headrace.plugins.PluginHost`)."""

    def connectors(self) -> Mapping[str, wire.ConnectorInfo]:
        """Connectors by name."""
        ...

    def failures(self) -> Sequence[PluginFailure]:
        """Plugins that cannot be used."""
        ...

    async def open(self, connector: str, settings: Mapping[str, Any]) -> Connector:
        """Configure a connector."""
        ...


class DestinationHandlers:
    """Destinations of workspaces."""

    def __init__(self, store: ConfigStore, host: Host, sealer: Sealer, *, allow_private: bool) -> None:
        """Keep them in a store.

        Args:
            store: Destinations.
            host: Of their connectors.
            sealer: Seals settings.
            allow_private: Let receivers of alerts have loopback, private and link-local addresses.
        """
        self._allow_private = allow_private
        self._store = store
        self._host = host
        self._sealer = sealer

    def connectors(self) -> tuple[list[wire.ConnectorInfo], list[PluginFailure]]:
        """(connectors by name, plugins that failed to load)."""
        found = self._host.connectors()
        return [found[name] for name in sorted(found)], sorted(self._host.failures(), key=lambda f: f.plugin)

    async def create(
        self, workspace_id: str, destination_id: str, wanted: Destination, request_id: str
    ) -> DestinationConfig:
        """Make a destination.

        Raises:
            ApiError: INVALID_ARGUMENT or ALREADY_EXISTS.
        """
        info = self._offered(wanted.connector)
        key = key_of(workspace_id, destination_id)
        settings = self._merged(info, settings_object("destination.settings", wanted.settings), None)
        await self._check(info.name, settings)
        alert_url, alert_sealed = self._hook(key, wanted, "")
        now = now_us()
        destination = DestinationConfig(
            key=key,
            workspace_id=workspace_id,
            id=destination_id,
            display_name=names.display_name("destination.display_name", wanted.display_name),
            connector=info.name,
            sealed=self._sealed(key, settings),
            masked=_masked(info, settings),
            state=self._state(wanted.state) or _ACTIVE,
            state_reason="",
            created_us=now,
            updated_us=now,
            revision=1,
            request_id=request_id,
            required_consents=consents.checked("destination.required_consents", wanted.required_consents),
            alert_url=alert_url,
            alert_sealed=alert_sealed,
        )
        if await self._store.insert_destination(destination):
            return destination
        existing = await self._store.get_destination(workspace_id, key)
        if existing is not None and request_id and existing.request_id == request_id:
            await self._store.announce()
            return existing
        raise already_exists(destination.name)

    async def settings_to_test(
        self, workspace_id: str, wanted: Destination
    ) -> tuple[wire.ConnectorInfo, dict[str, Any]]:
        """The connector and the settings, secrets in the clear, of a destination that is saved or not.

        Raises:
            ApiError: NOT_FOUND, INVALID_ARGUMENT or FAILED_PRECONDITION.
        """
        saved, old = None, None
        if wanted.name:
            workspace, destination_id = names.parse(names.DESTINATION, wanted.name, "destination.name")
            if workspace != workspace_id:
                raise invalid_argument("destination.name", "must be of the workspace in parent")
            saved = await self.get(workspace, destination_id)
            old = msgspec.json.decode(self._sealer.open(saved.sealed, sealing_place(saved.key)), type=dict[str, Any])
        info = self._loaded(saved.connector) if saved else self._offered(wanted.connector)
        if old is not None and not wanted.settings:
            return info, old
        return info, self._merged(info, settings_object("destination.settings", wanted.settings), old)

    async def get(self, workspace_id: str, destination_id: str) -> DestinationConfig:
        """A destination.

        Raises:
            ApiError: NOT_FOUND.
        """
        found = await self._store.get_destination(workspace_id, key_of(workspace_id, destination_id))
        if found is None:
            raise not_found(f"workspaces/{workspace_id}/destinations/{destination_id}")
        return found

    async def lists_of(self, destination: DestinationConfig) -> list[str]:
        """The vendor's lists that syncs of a destination name."""
        syncs = await self._store.syncs_of_destination(destination.workspace_id, destination.id)
        return sorted({sync.list_id for sync in syncs if sync.is_list and sync.list_id})

    async def page(self, workspace_id: str, after_id: str, limit: int) -> list[DestinationConfig]:
        """Destinations with a greater id, by id."""
        return await self._store.list_destinations(workspace_id, after_id, limit)

    async def update(
        self, workspace_id: str, destination_id: str, wanted: Destination, fields: set[str]
    ) -> DestinationConfig:
        """Change fields of a destination.

        Raises:
            ApiError: NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION or ABORTED.
        """
        for _ in range(_TRIES):
            before = await self.get(workspace_id, destination_id)
            check_etag(wanted.etag, before.revision)
            after = await self._changed(before, wanted, fields)
            if dataclasses.replace(after, updated_us=before.updated_us, revision=before.revision) == before:
                return before  # nothing differs, so applying a configuration again changes no etag
            if await self._store.replace_destination(after, before.revision, self._lists_check(before, after)):
                return after
        raise etag_mismatch()

    async def delete(self, workspace_id: str, destination_id: str) -> None:
        """Delete a destination that no sync uses.

        Raises:
            ApiError: NOT_FOUND or FAILED_PRECONDITION.
        """
        found = await self.get(workspace_id, destination_id)
        users = await self._store.syncs_of_destination(workspace_id, destination_id)
        if users:
            raise in_use(found.name, [user.name for user in users])
        await self._store.delete_destination(workspace_id, found.key)

    def _lists_check(self, before: DestinationConfig, after: DestinationConfig) -> Check | None:
        """What other settings have to fulfil, when they name another list."""
        info = self._host.connectors().get(before.connector)
        if info is None or before.masked == after.masked:
            return None
        return apart_as_before(info, msgspec.json.decode(before.masked), msgspec.json.decode(after.masked))

    async def _changed(self, before: DestinationConfig, wanted: Destination, fields: set[str]) -> DestinationConfig:
        after = dataclasses.replace(before, updated_us=now_us(), revision=before.revision + 1)
        if "display_name" in fields:
            after = dataclasses.replace(
                after, display_name=names.display_name("destination.display_name", wanted.display_name)
            )
        if "required_consents" in fields:
            required = consents.checked("destination.required_consents", wanted.required_consents)
            if required != before.required_consents:
                after = dataclasses.replace(after, required_consents=required, consents_changed_us=after.updated_us)
        if "alert_hook" in fields:
            alert_url, alert_sealed = self._hook(before.key, wanted, before.alert_sealed)
            after = dataclasses.replace(after, alert_url=alert_url, alert_sealed=alert_sealed)
        if "settings" in fields:
            info = self._loaded(before.connector)
            old = msgspec.json.decode(self._sealer.open(before.sealed, sealing_place(before.key)))
            settings = self._merged(info, settings_object("destination.settings", wanted.settings), old)
            if settings != old:
                await self._check(info.name, settings)
                # Whatever stopped it may be gone with the old settings; a pause by a user stays.
                new_state = _PAUSED if before.state == _PAUSED else _ACTIVE
                after = dataclasses.replace(
                    after,
                    sealed=self._sealed(before.key, settings),
                    masked=_masked(info, settings),
                    state=new_state,
                    state_reason="",
                )
        if "state" in fields and (state := self._state(wanted.state)):
            after = dataclasses.replace(after, state=state, state_reason="")
        return after

    def _hook(self, key: str, wanted: Destination, before: str) -> tuple[str, str]:
        return checked_hook(wanted.alert_hook, key, before, self._sealer, allow_private=self._allow_private)

    def _state(self, state: int) -> int:
        if state == DestinationState.DESTINATION_STATE_UNAUTHORIZED:
            raise invalid_argument("destination.state", "can be set to ACTIVE or PAUSED only")
        return state

    def _offered(self, connector: str) -> wire.ConnectorInfo:
        """The connector that a new destination asks for."""
        info = self._host.connectors().get(connector)
        if info is None:
            offered = ", ".join(sorted(self._host.connectors())) or "none"
            raise invalid_argument("destination.connector", f"there is no such connector; there are: {offered}")
        return info

    def _loaded(self, connector: str) -> wire.ConnectorInfo:
        """The connector of a destination that is there."""
        info = self._host.connectors().get(connector)
        if info is None:
            raise wrong_state("PLUGIN_MISSING", f"The plugin of connector {connector!r} is not loaded.")
        return info

    def _merged(self, info: wire.ConnectorInfo, new: dict[str, Any], old: dict[str, Any] | None) -> dict[str, Any]:
        try:
            merged: dict[str, Any] = merge_masked(info.settings_schema, new, old)
        except ValueError as error:
            raise invalid_argument("destination.settings", str(error)) from None
        return merged

    async def _check(self, connector: str, settings: Mapping[str, Any]) -> None:
        """Let the plugin check the settings."""
        try:
            opened = await self._host.open(connector, settings)
        except PluginConfigError as error:
            raise refused_settings(error) from None
        except PluginError as error:
            if error.kind is PluginErrorKind.CRASHED:
                raise unavailable(f"The plugin cannot check the settings now: {error.reason}.") from None
            raise invalid_argument("destination.settings", f"the plugin failed on them: {error.reason}") from None
        await opened.close()

    def _sealed(self, key: str, settings: Mapping[str, Any]) -> str:
        return self._sealer.seal(msgspec.json.encode(settings).decode(), sealing_place(key))


def refused_settings(error: PluginConfigError) -> ApiError:
    """Settings that cannot work: a violation for each that is wrong."""
    named = [
        (f"destination.settings.{field}" if field else "destination.settings", reason)
        for field, reason in error.problems
    ]
    return invalid_argument(*named[0]) if len(named) == 1 else invalid_arguments(named)


def _masked(info: wire.ConnectorInfo, settings: Mapping[str, Any]) -> str:
    return msgspec.json.encode(mask_settings(info.settings_schema, settings)).decode()
