"""Which list of the vendor a sync may fill: one that the connector takes, and that no other sync fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.connector import wire
from headrace.plugins.errors import PluginConfigError, PluginError, PluginErrorKind
from headrace.plugins.host import PluginHost
from headrace.rpc.errors import invalid_argument, unavailable, wrong_state
from headrace.storage.sealing import Sealer
from headrace_sync.config import DestinationConfig, SyncConfig, sealing_place
from headrace_sync.lists.targets import brought_together, default_list, other_of_list, problem_with_list, with_list
from headrace_sync.store import Check

_FIELD = "sync.list"


class SyncLists:
    """Checks lists of syncs."""

    def __init__(self, host: PluginHost, sealer: Sealer) -> None:
        """Ask connectors of a host, with settings that a sealer opens."""
        self._host = host
        self._sealer = sealer

    async def check(self, info: wire.ConnectorInfo, destination: DestinationConfig, sync: SyncConfig) -> None:
        """Let the connector check the list that a sync names.

        Raises:
            ApiError: INVALID_ARGUMENT, or UNAVAILABLE when the plugin cannot be asked now.
        """
        if not sync.list_id:
            return
        if not sync.is_list:
            raise invalid_argument(_FIELD, "is for LIST syncs only")
        if problem := problem_with_list(info, sync.list_id):
            raise invalid_argument(_FIELD, problem)
        settings = msgspec.json.decode(
            self._sealer.open(destination.sealed, sealing_place(destination.key)), type=dict[str, Any]
        )
        try:
            opened = await self._host.open(info.name, with_list(info, settings, sync.list_id))
        except PluginConfigError as error:
            if error.field.partition(".")[0] == info.list_setting:
                raise invalid_argument(_FIELD, error.reason) from None
            raise wrong_state("SETTINGS_REFUSED", f"The settings cannot work: {error.reason}.") from None
        except PluginError as error:
            if error.kind is PluginErrorKind.CRASHED:
                raise unavailable(f"The plugin cannot check the list now: {error.reason}.") from None
            raise wrong_state("PLUGIN_FAILED", f"The plugin failed: {error.reason}.") from None
        await opened.close()


def alone_on_its_list(info: wire.ConnectorInfo, sync: SyncConfig) -> Check:
    """Refuses a sync whose list another sync of the destination fills."""

    def check(destination: DestinationConfig, syncs: Sequence[SyncConfig]) -> None:
        other = other_of_list(info, destination, sync, syncs)
        if other is None:
            return
        if not info.list_setting:
            raise invalid_argument(
                "sync.destination",
                f"its list is filled by {other.name}, and connector {info.name!r} has one list per destination: make "
                "another destination",
            )
        which = "it" if sync.list_id else "the list of the destination's settings"
        raise invalid_argument(_FIELD, f"{which} is filled by {other.name}: name another list of the vendor")

    return check


def apart_as_before(info: wire.ConnectorInfo, before: Mapping[str, Any], after: Mapping[str, Any]) -> Check | None:
    """Refuses settings of a destination that name a list which one sync names for itself and another one would follow.

    Args:
        info: What the connector is.
        before: The settings as they are.
        after: The settings as they are to be.

    Returns:
        None when the settings name the same list as before.
    """
    if default_list(info, before) == default_list(info, after):
        return None

    def check(destination: DestinationConfig, syncs: Sequence[SyncConfig]) -> None:
        both = brought_together(info, destination, syncs)
        if both is not None:
            following, naming = both
            raise invalid_argument(
                f"destination.settings.{info.list_setting}",
                f"{naming.name} fills this list, and {following.name} would too, which names none of its own",
            )

    return check
