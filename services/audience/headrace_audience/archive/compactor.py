"""Merges small files of the archive and removes files that nobody needs any more.

Files of one day that were merged equally often are merged when there are enough of them, so a row is rewritten a few
times at most. What was merged stays readable for a while, for queries that began before.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from headrace.domain.times import SECOND_US, now_us
from headrace.telemetry import logs
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.registry import ArchiveFile, Registry
from headrace_audience.archive.writer import publish_manifest

log = logs.get_logger(__name__)

MAX_ROWS = 4_000_000
"""A merged file gets no longer than about this, so that merging fits into memory."""
LOOKUP = 1_000


class Compactor:
    """Tidies the archive under the writer's fencing token."""

    def __init__(self, registry: Registry, files: Files, *, token: int, at_least: int, grace_s: float) -> None:
        """Tidy as the holder of a lease.

        Args:
            registry: Which files are valid.
            files: The files.
            token: Fencing token of the lease, claimed by the writer.
            at_least: Files of one day and level from which on they are merged.
            grace_s: How long files stay after they were replaced, longer than any query, in seconds.
        """
        self._registry = registry
        self._files = files
        self._token = token
        self._at_least = at_least
        self._grace_s = grace_s

    async def merge_small(self) -> int:
        """Merge wherever there are enough files; returns the number of files that were merged.

        Raises:
            ArchiveFencedError: Another replica writes the archive now.
        """
        groups: dict[tuple[str, str, str, int], list[ArchiveFile]] = defaultdict(list)
        for file in (await self._registry.listing()).files:
            groups[file.kind, file.workspace_id, file.day, file.level].append(file)
        merged = 0
        changed: set[str] = set()
        for (_, workspace_id, _, _), group in sorted(groups.items()):
            group.sort(key=lambda f: (f.first, f.path))
            for start in range(0, len(group) - self._at_least + 1, self._at_least):
                part = group[start : start + self._at_least]
                if sum(f.rows for f in part) > MAX_ROWS:
                    continue
                new = await asyncio.to_thread(self._merge, part)
                await self._registry.commit(self._token, [new], retired=part)
                merged += len(part)
                changed.add(workspace_id)
        for workspace_id in sorted(changed):
            await publish_manifest(self._registry, self._files, workspace_id)
        return merged

    def _merge(self, part: Sequence[ArchiveFile]) -> ArchiveFile:
        kind, workspace_id, day, level = part[0].kind, part[0].workspace_id, part[0].day, part[0].level + 1
        first, last = min(f.first for f in part), max(f.last for f in part)
        path = layout.path_of(kind, workspace_id, day, first, last, self._token, level)
        # A column that an older file lacks is filled with nulls.
        tables = [self._files.read(f.path) for f in part]
        table = pa.concat_tables([layout.SCHEMAS[kind].empty_table(), *tables], promote_options="default")
        size = self._files.write(path, table, layout.SORT_KEYS[kind])
        return ArchiveFile(path, kind, workspace_id, day, first, last, level, table.num_rows, size)

    async def remove_retired(self) -> int:
        """Remove files that were replaced long enough ago; returns how many."""
        paths = await self._registry.retired_before(now_us() - int(self._grace_s * SECOND_US))
        if paths:
            await asyncio.to_thread(self._files.delete, paths)
            await self._registry.forget(paths)
        return len(paths)

    async def remove_orphans(self) -> int:
        """Remove files that a crash left without a row; returns how many. Lists the whole archive."""
        old = time.time() - self._grace_s
        found = await asyncio.to_thread(lambda: [p for p, changed in self._files.list() if changed < old])
        candidates = [p for p in found if p.endswith((".parquet", ".partial"))]
        removed = 0
        for start in range(0, len(candidates), LOOKUP):
            some = candidates[start : start + LOOKUP]
            orphans = sorted(set(some) - await self._registry.known(some))
            await asyncio.to_thread(self._files.delete, orphans)
            removed += len(orphans)
        if removed:
            log.info("files without a row were removed from the archive", count=removed)
        return removed
