"""What sample events become with settings that are saved or not: shown, never sent."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.sync.v1.destination_service_pb2 import Destination
from headrace.domain.times import now_us
from headrace.plugins.errors import PluginConfigError, PluginError, PluginErrorKind
from headrace.plugins.host import PluginHost
from headrace.plugins.mapping import MappingError
from headrace.plugins.offline import InputError
from headrace.plugins.render import Rendering, render
from headrace.rpc.errors import invalid_argument, unavailable, wrong_state
from headrace_sync.calls.destination_handlers import DestinationHandlers, refused_settings

MOST_EVENTS = 100
LONGEST_EVENT = 100_000


class DestinationTests:
    """Tries destinations with sample events."""

    def __init__(self, handlers: DestinationHandlers, host: PluginHost) -> None:
        """Take destinations from handlers, and connectors from a host."""
        self._handlers = handlers
        self._host = host

    async def run(self, workspace_id: str, wanted: Destination, mapping: str, events: Sequence[str]) -> Rendering:
        """The requests for sample events, secrets masked.

        Raises:
            ApiError: NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION or UNAVAILABLE.
        """
        if not 1 <= len(events) <= MOST_EVENTS:
            raise invalid_argument("events", f"must be 1 to {MOST_EVENTS} events")
        lines = []
        for place, event in enumerate(events):
            if not event.strip() or len(event) > LONGEST_EVENT:
                raise invalid_argument(f"events[{place}]", f"must be an event of at most {LONGEST_EVENT:,} characters")
            lines.append(event)
        info, settings = await self._handlers.settings_to_test(workspace_id, wanted)
        try:
            return await render(
                self._host, connector=info.name, settings=settings, now_us=now_us(), mapping=mapping or None,
                events=lines, as_they_came=True,
            )  # fmt: skip
        except InputError as error:
            raise invalid_argument(f"events[{error.line - 1}]", error.reason) from None
        except MappingError as error:
            raise invalid_argument("mapping", str(error)) from None
        except PluginConfigError as error:
            raise refused_settings(error) from None
        except PluginError as error:
            if error.kind is PluginErrorKind.CRASHED and error.untried:
                raise unavailable(f"The plugin is not there at the moment: {error.reason}.") from None
            raise wrong_state("PLUGIN_FAILED", f"The plugin failed: {error.reason}.") from None
        except ValueError as error:
            raise invalid_argument("events", str(error)) from None
