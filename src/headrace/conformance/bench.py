"""The bench on which a connector is checked: its host, an instance of it, test data, and the author's files."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from headrace.conformance.checks import CheckFailed
from headrace.conformance.vendor import FakeVendor
from headrace.conformance.vendor_file import VendorFile, read_vendor_file
from headrace.connector import wire
from headrace.plugins import PluginHost
from headrace.plugins.discovery import InstalledPlugin, discover
from headrace.plugins.errors import PluginError
from headrace.plugins.host import ConnectorInstance
from headrace.plugins.render import resolve
from headrace_sdk import DeleteBatch, EventBatch, Member, MemberBatch, Row
from headrace_sdk.samples import NOW_US, Fill, Samples

ADD, REMOVE, SEND, DELETE = "add_members", "remove_members", "send_events", "delete"
FEW = 2
EXAMPLES = 24
_CHOICES = 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """How to check.

    Attributes:
        folder: Folder with the author's `vendor.json` and golden cases; None when nobody knows it.
        settings: Settings in place of those of `vendor.json` and of the samples.
        seed: Seed of the test data.
        examples: Batches that are made by chance for each property.
        update: Write golden cases anew in place of comparing them.
        path: Folders to look for plugins in, in place of sys.path.
        folders: Folders of plugins in other languages.
    """

    folder: Path | None = None
    settings: Mapping[str, Any] | None = None
    seed: int = 0
    examples: int = EXAMPLES
    update: bool = False
    path: Sequence[str] | None = None
    folders: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Items for one call.

    Attributes:
        call: ADD, REMOVE, SEND or DELETE.
        items: Rows, events or subjects.
    """

    call: str
    items: tuple[Any, ...]


class Bench:
    """One connector on the bench. A context manager; everything is opened when it is first needed.

    Attributes:
        memory: What several checks look at and one of them has made.
    """

    def __init__(self, connector: str, options: Options | None = None, *, beside: Bench | None = None) -> None:
        """Describe the bench; nothing is started yet.

        Args:
            connector: Name of the connector, or of the plugin that offers it alone.
            options: How to check.
            beside: A bench of another connector of the same plugin, whose hosts and vendor serve this one too; it has
                to stay open as long.
        """
        self.asked = connector
        self.options = options or Options()
        self._first: Bench = self if beside is None else beside._first
        # A host belongs to the loop it began in.
        self._runner: asyncio.Runner = asyncio.Runner() if beside is None else beside._runner
        self._hosts: dict[bool, PluginHost] = {}
        self._vendor: FakeVendor | None = None
        self._instance: ConnectorInstance | None = None
        self._worker: ConnectorInstance | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.memory: dict[str, Any] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything that was started."""
        for instance in (self._instance, self._worker):
            if instance is not None:
                self.run(instance.close())
        if self._vendor is not None:
            self.run(self._vendor.close())
        for host in self._hosts.values():
            self.run(host.close())
        if self._folder is not None:
            self._folder.cleanup()
        if self._first is self:
            self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for something on the bench's own loop."""
        return self._runner.get_loop().run_until_complete(coroutine)

    @cached_property
    def plugin(self) -> InstalledPlugin | None:
        """The plugin as it is installed; None when only its connector has this name."""
        found, _ = discover([self._first.asked], path=self.options.path, folders=self.options.folders)
        return found[0] if len(found) == 1 else None

    @property
    def in_python(self) -> bool:
        """True when the plugin is written in Python, so that it can be looked at from within."""
        return self.plugin is None or not self.plugin.command

    def host_in(self, *, process: bool) -> PluginHost:
        """A started host with the plugin, alone if it is known: in this process, or in one of its own."""
        if self._first is not self:
            return self._first.host_in(process=process)
        if process not in self._hosts:
            wanted = [self.asked] if self.plugin is not None else None
            folders = self.options.folders
            host = PluginHost(wanted, path=self.options.path, folders=folders, in_process=not process)
            self.run(host.start())
            self._hosts[process] = host
        return self._hosts[process]

    @property
    def host(self) -> PluginHost:
        """The host that has the plugin in this process, so that what it does can be seen."""
        return self.host_in(process=False)

    @cached_property
    def info(self) -> wire.ConnectorInfo:
        """What the connector says of itself.

        Raises:
            CheckFailed: It cannot be loaded.
        """
        try:
            return self.host.connectors()[resolve(self.host, self.asked)]
        except PluginError as error:
            raise CheckFailed(error.reason) from None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings that the connector takes."""
        given = self.options.settings
        return self.samples(self.options.seed).settings(self.vendor_file.settings if given is None else given)

    @property
    def instance(self) -> ConnectorInstance:
        """The connector with these settings.

        Raises:
            CheckFailed: It refuses them.
        """
        if self._instance is None:
            self._instance = self.new_instance(self.settings)
        return self._instance

    def new_instance(self, settings: Mapping[str, Any]) -> ConnectorInstance:
        """The connector with settings, on the host in this process.

        Raises:
            CheckFailed: It refuses them.
        """
        try:
            return self.run(self.host.open(self.info.name, settings))
        except PluginError as error:
            raise CheckFailed(f"it refuses the settings: {error.reason}") from None

    @property
    def worker(self) -> tuple[PluginHost, ConnectorInstance]:
        """The host that has the plugin in a process of its own, and the connector there.

        Raises:
            CheckFailed: It cannot be loaded there, or refuses the settings.
        """
        host = self.host_in(process=True)
        if self._worker is None:
            try:
                self._worker = self.run(host.open(self.info.name, self.settings))
            except PluginError as error:
                failures = "; ".join(failure.reason for failure in host.failures())
                raise CheckFailed(failures or error.reason) from None
        return host, self._worker

    @property
    def vendor(self) -> FakeVendor:
        """The fake vendor, started."""
        if self._first is not self:
            return self._first.vendor
        if self._vendor is None:
            self._vendor = FakeVendor()
            self.run(self._vendor.start())
        return self._vendor

    @property
    def folder(self) -> str:
        """A folder for what a connector writes; it goes with the bench."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="headrace-conformance-")
        return self._folder.name

    @cached_property
    def vendor_file(self) -> VendorFile:
        """What the author says of the vendor; empty without a file."""
        return read_vendor_file(self.options.folder)

    def samples(self, seed: int) -> Samples:
        """Test data."""
        return Samples(self.info, seed, schema=self.info.settings_schema)

    def calls(self) -> list[str]:
        """The calls with batches that the connector declares."""
        capabilities = self.info.capabilities
        found = []
        if "list_sync" in capabilities:
            found += [ADD, REMOVE] if self.info.removes else [ADD]
        if capabilities & {"event_sync", "forwarding"}:
            found.append(SEND)
        if "deletion" in capabilities:
            found.append(DELETE)
        return found

    def batch(self, call: str, size: int = FEW, *, fill: Fill = Fill.ALL, seed: int | None = None) -> Batch:
        """Seeded items for a call: as many as the connector takes at once, at most.

        Raises:
            CheckFailed: The connector makes no rows of the members.
        """
        samples = self.samples(self.options.seed if seed is None else seed)
        size = min(size, self.info.batch.max_items)
        if call == SEND:
            return Batch(call, samples.events(size, fill))
        if call == DELETE:
            return Batch(call, samples.subjects(size))
        return Batch(call, self.rows(samples.members(size, fill))[:size])

    def required(self, call: str) -> tuple[Batch, wire.BuiltBatch]:
        """An item with the required fields alone, of those that the manifest lets choose, and what becomes of it.

        Where a manifest says that one field of a group is enough, the connector may need a certain one or several: the
        first choice that is sent counts.
        """
        for seed in range(self.options.seed, self.options.seed + _CHOICES):
            batch = self.batch(call, 1, fill=Fill.REQUIRED, seed=seed)
            found = self.build(batch)
            if found.requests and not found.skipped:
                return batch, found
        for keys in self.info.removal_keys if call in (ADD, REMOVE) else ():
            fields = self.samples(self.options.seed).members(1)[0].fields
            member = Member(profile_id="p-0", fields={name: fields[name] for name in keys})
            batch = Batch(call, self.rows([member])[:1])
            found = self.build(batch)
            if found.requests and not found.skipped:
                return batch, found
        return batch, found

    def left_out(self, fill: Fill) -> str:
        """Why the first member of the samples gets no rows; empty when it gets some, or nobody says why."""
        (found,) = self.run(self.instance.rows(self.samples(self.options.seed).members(1, fill)))
        return found.rejected.reason if found.rejected is not None else ""

    def rows(self, members: Sequence[Member]) -> tuple[Row, ...]:
        """The rows of members, each key once."""
        found = self.run(self.instance.rows(members))
        return tuple({row.key: row for member in found for row in member.rows}.values())

    def build(
        self, batch: Batch, instance: ConnectorInstance | None = None, *, now_us: int = NOW_US
    ) -> wire.BuiltBatch:
        """The requests for a batch.

        Raises:
            CheckFailed: The connector failed, or broke its contract.
        """
        if not batch.items:
            return wire.BuiltBatch()  # the host asks nothing about nothing
        try:
            return self.run(built(instance or self.instance, batch, now_us=now_us))
        except PluginError as error:
            raise CheckFailed(f"{batch.call}: {error.reason}") from None


async def built(instance: ConnectorInstance, batch: Batch, *, now_us: int = NOW_US) -> wire.BuiltBatch:
    """The requests that an instance makes of a batch.

    Raises:
        PluginError: The connector failed, or broke its contract.
    """
    match batch.call:
        case "add_members":
            return await instance.add_members(MemberBatch(rows=batch.items, now_us=now_us))
        case "remove_members":
            return await instance.remove_members(MemberBatch(rows=batch.items, now_us=now_us))
        case "send_events":
            return await instance.send_events(EventBatch(events=batch.items, now_us=now_us))
        case _:
            return await instance.delete(DeleteBatch(subjects=batch.items, now_us=now_us))


def part(batch: Batch, places: Sequence[int]) -> Batch:
    """Some items of a batch."""
    return replace(batch, items=tuple(batch.items[place] for place in places))
