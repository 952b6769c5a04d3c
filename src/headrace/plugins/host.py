"""The plugin host: all installed plugins, each in its own process, and the connectors they offer.

No code of a plugin runs in the host's process. What a plugin answers is checked against the contract before anyone
sees it, and its texts are masked: a plugin that raises, hangs, ends, loses items or prints its secret harms nobody
but its own deliveries.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from headrace.connector import operations, wire
from headrace.connector.operations import Operation
from headrace.plugins.contract import ContractBroken, check_built, check_count, check_info, check_request, check_rows
from headrace.plugins.discovery import discover
from headrace.plugins.errors import PluginError, PluginErrorKind, PluginFailure
from headrace.plugins.masking import Masker, secrets_of
from headrace.plugins.nursery import Nursery
from headrace.plugins.options import Options
from headrace.plugins.process import Instance, Limits, PluginProcess, python_environment
from headrace.plugins.reading import Reader
from headrace.telemetry.logs import get_logger
from headrace_sdk import (
    Check,
    DeleteBatch,
    Delivered,
    EventBatch,
    Job,
    Member,
    MemberBatch,
    Note,
    Outcome,
    Outcomes,
    Pending,
    Request,
    Response,
)

_log = get_logger(__name__)

_LONGEST_REASON = 500
_LONGEST_NAME = 128
_SHOWN_LINES = 20
_LOADED_AT_A_TIME = 4
ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


class PluginHost:
    """All plugins that are installed and wanted."""

    def __init__(
        self,
        plugins: Iterable[str] | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        path: Sequence[str] | None = None,
        folders: Iterable[str] = (),
        in_process: bool = False,
    ) -> None:
        """Describe the host; nothing is started yet.

        Args:
            plugins: Names of distributions or entry points to load (HEADRACE_PLUGINS); None loads all.
            limits: What each plugin may use.
            path: Folders to look for plugins in, instead of sys.path; they come first on the plugins' own path.
            folders: Folders of plugins in other languages (HEADRACE_PLUGIN_FOLDERS).
            in_process: Run Python plugins in this process (HEADRACE_PLUGINS_IN_PROCESS), for debugging them: nothing
                then guards it against what they do.
        """
        self._wanted = None if plugins is None else tuple(plugins)
        self._limits = limits
        self._path = path
        self._folders = tuple(folders)
        self._in_process = in_process
        self._nursery: Nursery | None = None
        self._processes: dict[str, PluginProcess] = {}
        self._connectors: dict[str, wire.ConnectorInfo] = {}
        self._failures: list[PluginFailure] = []
        self._ids = itertools.count(1)

    @classmethod
    def of(cls, options: Options) -> PluginHost:
        """A host as settings say."""
        return cls(options.plugins, folders=options.folders, in_process=options.in_process)

    async def start(self) -> None:
        """Find and load the plugins, several at a time. A broken one goes to `failures`; never raises for a plugin."""
        plugins, self._failures = await asyncio.to_thread(
            discover, self._wanted, path=self._path, folders=self._folders
        )
        at_a_time = asyncio.Semaphore(_LOADED_AT_A_TIME)
        path = self._path or ()
        nursery = self._nursery = Nursery(python_environment(path))
        in_process = path if self._in_process else None
        processes = [PluginProcess(plugin, self._limits, nursery, in_process=in_process) for plugin in plugins]

        async def load(process: PluginProcess) -> list[wire.ConnectorInfo] | PluginError:
            async with at_a_time:
                try:
                    return await process.load()
                except PluginError as error:
                    return error

        try:
            offers = await asyncio.gather(*map(load, processes))
        except BaseException:
            await asyncio.gather(*(process.close() for process in processes))
            await nursery.close()
            raise
        for process, offer in zip(processes, offers, strict=True):
            reason = offer.reason if isinstance(offer, PluginError) else self._unusable(offer)
            if not reason and not isinstance(offer, PluginError):
                self._processes[process.plugin.name] = process
                for info in offer:
                    named = dataclasses.replace(info, plugin=process.plugin.name, version=process.plugin.version)
                    self._connectors[info.name] = named
                continue
            await process.close()
            printed = tuple(process.output.lines()[-_SHOWN_LINES:])
            self._failures.append(PluginFailure(process.plugin.name, process.plugin.version, reason, printed))
        for failure in self._failures:
            _log.warning("plugin not loaded", plugin=failure.plugin, version=failure.version, reason=failure.reason)
        _log.info("plugins loaded", plugins=sorted(self._processes), connectors=sorted(self._connectors))

    async def close(self) -> None:
        """End all plugins; calls under way fail."""
        processes, self._processes = list(self._processes.values()), {}
        await asyncio.gather(*(process.close() for process in processes))
        if self._nursery is not None:
            await self._nursery.close()

    def connectors(self) -> Mapping[str, wire.ConnectorInfo]:
        """The connectors that can be used, by name."""
        return dict(self._connectors)

    def failures(self) -> Sequence[PluginFailure]:
        """The plugins that cannot be used, with the reason."""
        return tuple(self._failures)

    def processes(self) -> Mapping[str, int | None]:
        """Process ids by plugin; None where there is no process at the moment."""
        return {name: process.pid for name, process in self._processes.items()}

    def output(self, plugin: str) -> list[str]:
        """The last lines that a plugin printed, secrets masked. May hold personal data: show it, never log it."""
        process = self._processes.get(plugin)
        return process.output.lines() if process is not None else []

    async def open(self, connector: str, settings: Mapping[str, Any]) -> ConnectorInstance:
        """Configure a connector.

        Args:
            connector: Its name.
            settings: Its settings, secrets in the clear.

        Raises:
            PluginConfigError: The settings cannot work; `field` and `reason` say why.
            PluginError: There is no such connector (kind "load"), or its plugin failed.
        """
        info, process = self._find(connector)
        secrets = secrets_of(info.settings_schema, settings)
        instance = Instance(f"{connector}/{next(self._ids)}", connector, dict(settings), secrets)
        opened = ConnectorInstance(info, process, instance)
        await opened.prepare()
        return opened

    async def normalise(self, connector: str, values: Sequence[tuple[str, str]]) -> list[wire.NormalisedValue]:
        """How a connector would send values of fields, whatever its settings.

        Args:
            connector: Its name.
            values: (field, value) pairs.

        Returns:
            One answer per pair, in their order.

        Raises:
            PluginError: There is no such connector (kind "load"), or its plugin failed.
        """
        _, process = self._find(connector)
        found = await process.call(operations.NORMALISE, operations.Values(values, connector))
        _check(process, lambda: check_count(len(values), len(found), "value"))
        return found

    def _find(self, connector: str) -> tuple[wire.ConnectorInfo, PluginProcess]:
        info = self._connectors.get(connector)
        process = self._processes.get(info.plugin) if info is not None else None
        if info is None or process is None:
            offered = ", ".join(sorted(self._connectors)) or "none"
            reason = f"no plugin offers the connector {connector!r}; there are: {offered}"
            raise PluginError(PluginErrorKind.LOAD, "", reason)
        return info, process

    def _unusable(self, offer: Sequence[wire.ConnectorInfo]) -> str:
        """Why what a plugin offers cannot be used; empty when it can."""
        if not offer:
            return "it offers no connector"
        names = [info.name for info in offer]
        for info in offer:
            if names.count(info.name) > 1:
                return f"connector {info.name[:_LONGEST_NAME]!r} is offered twice"
            try:
                check_info(info)
            except ContractBroken as error:
                return str(error)[:_LONGEST_REASON]
            other = self._connectors.get(info.name)
            if other is not None:
                return f"the connector {info.name!r} is offered by {other.plugin} already"
        return ""


class ConnectorInstance:
    """A configured connector. Methods may be called from several tasks at a time.

    Each method raises PluginError: kind "timeout" or "crashed" when the plugin's process was ended (the next call gets
    a new one; `retry_after_s` says when), "defect" when its answer breaks the contract.

    Attributes:
        info: What the connector is.
        secrets: The secrets of the settings: mask them wherever its requests are shown.
    """

    def __init__(self, info: wire.ConnectorInfo, process: PluginProcess, instance: Instance) -> None:
        """Made by PluginHost.open."""
        self.info = info
        self.secrets = tuple(instance.secrets)
        self._process = process
        self._instance = instance
        self._masker = Masker(instance.secrets)
        self._reader = Reader(process.plugin.name, self._read_together)

    async def prepare(self) -> None:
        """Make the instance in the plugin's process now, which checks the settings.

        Raises:
            PluginConfigError: The settings cannot work.
        """
        await self._process.open(self._instance)

    async def rows(self, members: Sequence[Member]) -> list[wire.MemberRows]:
        """What should be on the vendor's list, one answer per member in their order.

        Args:
            members: Members with their mapped fields.
        """
        found = await self._call(operations.ROWS, members)
        _check(self._process, lambda: check_rows(len(members), found))
        return [
            member
            if member.rejected is None
            else _with_texts(member, self._text(member.rejected.reason), self._text(member.rejected.field))
            for member in found
        ]

    async def add_members(self, batch: MemberBatch) -> wire.BuiltBatch:
        """Requests that put rows on the list."""
        return await self._build(operations.ADD_MEMBERS, batch, batch.rows)

    async def remove_members(self, batch: MemberBatch) -> wire.BuiltBatch:
        """Requests that take rows off the list."""
        return await self._build(operations.REMOVE_MEMBERS, batch, batch.rows)

    async def send_events(self, batch: EventBatch) -> wire.BuiltBatch:
        """Requests that send events."""
        return await self._build(operations.SEND_EVENTS, batch, batch.events)

    async def delete(self, batch: DeleteBatch) -> wire.BuiltBatch:
        """Requests that make the vendor forget people."""
        return await self._build(operations.DELETE, batch, batch.subjects)

    async def read(self, request: Request, response: Response) -> Outcomes:
        """What a vendor's answer means: one outcome per item of the request, in its order."""
        outcomes = await self._reader.read(request, response)
        return dataclasses.replace(
            outcomes,
            items=tuple(map(self._outcome, outcomes.items)),
            unauthorized=self._text(outcomes.unauthorized),
            misconfigured=self._text(outcomes.misconfigured),
        )

    async def deliver(self, request: Request, *, timeout_s: float, allow_private: bool) -> wire.Delivery:
        """What came of a request that the connector sends by itself. May be cancelled.

        Args:
            request: As the connector made it, with one of its schemes.
            timeout_s: Seconds that it may take.
            allow_private: True lets it connect to private, loopback and link-local addresses.
        """
        asked = wire.ToDeliver(request=request, timeout_s=timeout_s, allow_private=allow_private)
        found = await self._process.deliver(asked, self._instance)
        return dataclasses.replace(
            found, unsent=self._text(found.unsent), lost=self._text(found.lost), refused=self._text(found.refused)
        )

    async def poll(self, job: Job) -> Request:
        """A request that asks how a job stands."""
        request = await self._call(operations.POLL, job)
        _check(self._process, lambda: check_request(request, range(job.items), self.info.schemes))
        return request

    async def check(self) -> list[Check]:
        """What to ask the vendor to find out whether the settings work."""
        checks = await self._call(operations.CHECKS, None)
        for one in checks:
            _check(self._process, lambda one=one: check_request(one.request, (), self.info.schemes))  # type: ignore[misc]  # the default binds the loop's value
        return [dataclasses.replace(one, title=self._text(one.title)) for one in checks]

    async def read_check(self, check: Check, response: Response) -> str:
        """What an answer to a check means: empty when all is well."""
        return self._text(await self._call(operations.READ_CHECK, (check, response)))

    async def lists(self, page: str = "") -> Request:
        """A request for a page of the vendor's lists."""
        request = await self._call(operations.LISTS, page)
        _check(self._process, lambda: check_request(request))
        return request

    async def create_list(self, name: str) -> Request:
        """A request that makes a list at the vendor."""
        request = await self._call(operations.CREATE_LIST, name)
        _check(self._process, lambda: check_request(request))
        return request

    async def read_lists(self, request: Request, response: Response) -> wire.FoundLists:
        """The lists in an answer."""
        found = await self._call(operations.READ_LISTS, (request, response))
        return dataclasses.replace(found, problem=self._text(found.problem))

    async def normalise(self, values: Sequence[tuple[str, str]]) -> list[wire.NormalisedValue]:
        """How values of fields would be sent.

        Args:
            values: (field, value) pairs.

        Returns:
            One answer per pair, in their order.
        """
        found = await self._call(operations.NORMALISE, operations.Values(values))
        _check(self._process, lambda: check_count(len(values), len(found), "value"))
        return found

    async def close(self) -> None:
        """Drop the instance."""
        await self._process.forget(self._instance)

    def mask(self, text: str) -> str:
        """A text with the secrets of the settings masked."""
        return self._masker.mask(text)

    async def _read_together(self, reads: list[tuple[Request, Response]]) -> list[wire.ReadResult]:
        return await self._call(operations.READ, reads)

    async def _call(self, operation: Operation[ArgumentT, ResultT], argument: ArgumentT) -> ResultT:
        return await self._process.call(operation, argument, instance=self._instance)

    async def _build(
        self, operation: Operation[ArgumentT, wire.BuiltBatch], batch: ArgumentT, items: Sequence[object]
    ) -> wire.BuiltBatch:
        built = await self._call(operation, batch)
        _check(self._process, lambda: check_built(len(items), built, self.info.schemes))
        return dataclasses.replace(
            built,
            skipped=tuple(
                dataclasses.replace(skip, reason=self._text(skip.reason), field=self._text(skip.field))
                for skip in built.skipped
            ),
            notes=tuple(Note(item=note.item, reason=self._text(note.reason)) for note in built.notes),
        )

    def _outcome(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Delivered | Pending):
            return outcome
        return dataclasses.replace(outcome, reason=self._text(outcome.reason))

    def _text(self, text: str) -> str:
        """A text of the plugin as it may be shown."""
        return self._masker.mask(text)[:_LONGEST_REASON] if text else text


def _check(process: PluginProcess, check: Callable[[], None]) -> None:
    try:
        check()
    except ContractBroken as error:
        raise PluginError(PluginErrorKind.DEFECT, process.plugin.name, str(error)) from None


def _with_texts(member: wire.MemberRows, reason: str, field: str) -> wire.MemberRows:
    """A member that is left out, with these texts."""
    assert member.rejected is not None
    return wire.MemberRows(rejected=dataclasses.replace(member.rejected, reason=reason, field=field))
