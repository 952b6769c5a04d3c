"""The archive: every event once and for all, whatever is committed late, crashes, or is compacted meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from headrace_audience.archive.compactor import Compactor
from headrace_audience.archive.files import Files
from headrace_audience.archive.layout import FORMAT
from headrace_audience.archive.reader import ArchiveReader
from headrace_audience.archive.registry import ArchiveFencedError, Registry
from headrace_audience.archive.writer import ArchiveWriter

from headrace.api.identity.v1.profile_pb2 import Merge, ResolvedEvent
from headrace.domain.times import DAY_US, SECOND_US, now_us
from headrace.storage.mongo import log
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams.client import Redis
from tests.support.resolved import FakeIdentity, event

MARGIN = 300 * SECOND_US


class Archive:
    """All parts on one folder."""

    def __init__(self, mongo: Client, db: Database, folder: Path, root: str = "") -> None:
        self.db = db
        self.folder = folder
        self.registry = Registry(mongo, db)
        self.files = Files(root or str(folder))
        self.reader = ArchiveReader(db, self.registry, self.files, margin_us=MARGIN)

    def writer(self, token: int = 1, settle_us: int = 0, margin_us: int = MARGIN) -> ArchiveWriter:
        return ArchiveWriter(self.db, self.registry, self.files, token=token, settle_us=settle_us, margin_us=margin_us)

    def compactor(self, token: int = 1, at_least: int = 3, grace_s: float = 0.0) -> Compactor:
        return Compactor(self.registry, self.files, token=token, at_least=at_least, grace_s=grace_s)

    async def rows(self, workspace_id: str = "acme") -> list[tuple[str, str]]:
        """(profile, message id) of everything a reader sees, without repetition."""
        async with self.reader.open(workspace_id) as view:
            query = "SELECT DISTINCT profile, message_id FROM events ORDER BY ALL"
            return list(await view.run(lambda c: c.execute(query).fetchall()))

    async def archived(self) -> Counter[str]:
        """Message ids in valid files, with how often each is there."""
        listing = await self.registry.listing()
        found: Counter[str] = Counter()
        for file in listing.files:
            if file.kind == "events":
                found.update(self.files.read(file.path, ["message_id"])["message_id"].to_pylist())
        return found

    def on_disk(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*.parquet"))


@pytest.fixture
def archive(mongo: Client, db: Database, tmp_path: Path) -> Archive:
    return Archive(mongo, db, tmp_path / "archive")


@pytest.fixture
def identity(db: Database, redis: Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, 4)


def ids(events: list[ResolvedEvent]) -> set[str]:
    return {e.event.message_id for e in events}


async def test_columns_and_layout(archive: Archive, identity: FakeIdentity) -> None:
    await identity.store(
        [
            event(
                "p1",
                "Purchased",
                at_us=1_700_000_000_000_000,
                message_id="m1",
                properties={"value": 19.9},
                identifiers=[("email", "a@b.c"), ("user_id", "u1")],
            ),
            event("p1", at_us=1_700_000_000_000_001, message_id="m2", traits={"plan": "gold"}),
            event("p2", "Purchased", at_us=1_700_000_000_000_000 - DAY_US, message_id="m3"),
            event("p9", "Purchased", workspace_id="other", message_id="m1"),
        ]
    )
    assert await archive.writer().run_once() == 4

    folders = {str(Path(p).parent) for p in archive.on_disk()}
    assert {"events/workspace=acme/day=2023-11-14", "events/workspace=acme/day=2023-11-13"} <= folders
    manifest = json.loads((archive.folder / "manifests" / "workspace=acme.json").read_text())
    assert sorted(manifest["events"]) == [p for p in archive.on_disk() if "workspace=acme" in p]

    # What analysts read with their own tools, by the manifest.
    table = ds.dataset([str(archive.folder / p) for p in manifest["events"]], format="parquet").to_table()
    first = next(r for r in table.to_pylist() if r["message_id"] == "m1")
    assert first["name"] == "Purchased" and first["kind"] == "track" and first["profile"] == "p1"
    assert json.loads(first["properties"]) == {"value": 19.9}
    assert first["namespaces"] == ["email", "user_id"]
    assert first["identifiers"][0] == {"namespace": "email", "value": "a@b.c"}
    second = next(r for r in table.to_pylist() if r["message_id"] == "m2")
    assert json.loads(second["person_traits"]) == {"plan": "gold"} and second["properties"] is None
    sql = f"SELECT count(*) FROM read_parquet('{archive.folder}/events/workspace=acme/*/*.parquet')"
    assert duckdb.execute(sql).fetchall() == [(3,)]


async def test_reader_sees_archive_and_tail_of_its_workspace_only(archive: Archive, identity: FakeIdentity) -> None:
    assert await archive.rows() == []
    await identity.store([event("p1", "A", message_id="m1"), event("", "A", message_id="nobody")])
    await archive.writer().run_once()
    await identity.store([event("p2", "A", message_id="m2"), event("x", "A", workspace_id="other", message_id="m3")])
    assert await archive.rows() == [("p1", "m1"), ("p2", "m2")]
    assert await archive.rows("other") == [("x", "m3")]


async def test_merged_profiles_are_read_as_their_survivors(archive: Archive, identity: FakeIdentity) -> None:
    await identity.store([event("p1", "A", message_id="m1"), event("p2", "A", message_id="m2")])
    merge = identity.merge("p2", "p1")
    await identity.store([event("p1", "A", message_id="m3", merges=[merge])])
    await archive.writer().run_once()
    await identity.store([event("p0", "A", message_id="m4", merges=[identity.merge("p1", "p0")])])  # in the tail only
    assert await archive.rows() == [("p0", "m1"), ("p0", "m2"), ("p0", "m3"), ("p0", "m4")]
    survivors = await archive.reader.survivors("acme")
    assert survivors.of("p2") == survivors.of("p1") == "p0"


async def test_events_that_are_too_young_wait(archive: Archive, identity: FakeIdentity) -> None:
    await identity.store([event("p1", "A")])
    writer = archive.writer(settle_us=3600 * SECOND_US)
    assert await writer.run_once() == 0
    assert len(await archive.rows()) == 1


async def test_late_commits_are_found_once(archive: Archive, identity: FakeIdentity) -> None:
    """A transaction may commit numbers that lie behind the watermark."""
    writer = archive.writer()
    late = event("p1", "A", message_id="late")
    late.decision.sequence = await log.next_sequence(archive.db, 1, now_us())
    await identity.store([event("p1", "A", message_id="m1")])
    assert await writer.run_once() == 1
    await archive.db[log.EVENTS].insert_one(log.event_document(late))
    assert ("p1", "late") in await archive.rows(), "readers look behind the watermark too"
    assert await writer.run_once() == 1
    assert await writer.run_once() == 0

    successor = archive.writer(token=2)  # reads from the files what is copied already
    later = event("p1", "A", message_id="later")
    later.decision.sequence = late.decision.sequence - 1
    await archive.db[log.EVENTS].insert_one(log.event_document(later))
    assert await successor.run_once() == 1
    assert await archive.archived() == {"m1": 1, "late": 1, "later": 1}


async def test_a_crash_between_file_and_watermark_changes_nothing(
    archive: Archive, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    await identity.store([event(f"p{i}", "A", message_id=f"m{i}") for i in range(5)])

    async def crash(*args: Any, **kwargs: Any) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(archive.registry, "commit", crash)
        with pytest.raises(OSError, match="killed"):
            await archive.writer().run_once()
    assert len(archive.on_disk()) == 1, "the file is there, its row is not"
    assert await archive.archived() == {}
    assert len(await archive.rows()) == 5

    await archive.writer(token=2).run_once()
    assert await archive.archived() == {f"m{i}": 1 for i in range(5)}
    assert len(archive.on_disk()) == 2
    await asyncio.sleep(0.01)
    assert await archive.compactor(token=2).remove_orphans() == 1
    assert len(archive.on_disk()) == 1
    assert len(await archive.rows()) == 5


async def test_a_crash_in_the_middle_of_a_file_leaves_no_file(
    archive: Archive, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    await identity.store([event("p1", "A")])

    def crash(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("headrace_audience.archive.files.pq.ParquetWriter.write_table", crash)
        with pytest.raises(OSError, match="disk full"):
            await archive.writer().run_once()
    assert archive.on_disk() == []
    await archive.writer(token=2).run_once()
    assert sum((await archive.archived()).values()) == 1


async def test_an_old_writer_is_fenced(archive: Archive, identity: FakeIdentity) -> None:
    old, new = archive.writer(token=1), archive.writer(token=2)
    await old.run_once()
    await new.run_once()
    await identity.store([event("p1", "A", message_id="m1")])
    with pytest.raises(ArchiveFencedError):
        await old.run_once()
    with pytest.raises(ArchiveFencedError):
        await archive.writer(token=1).run_once()
    await new.run_once()
    assert await archive.archived() == {"m1": 1}


async def written(archive: Archive, identity: FakeIdentity, files: int) -> set[str]:
    writer = archive.writer()
    expected: set[str] = set()
    for i in range(files):
        events = [event(f"p{i}", name, at_us=1_700_000_000_000_000 + i) for name in ("B", "A")]
        await identity.store(events)
        await writer.run_once()
        expected |= ids(events)
    return expected


async def test_compaction_merges_files_and_keeps_rows(archive: Archive, identity: FakeIdentity) -> None:
    expected = await written(archive, identity, 9)
    before = await archive.rows()
    assert await archive.compactor().merge_small() == 9
    assert await archive.compactor().merge_small() == 3, "three files of the next level are merged again"
    assert await archive.compactor().merge_small() == 0
    assert await archive.archived() == dict.fromkeys(expected, 1)
    assert await archive.rows() == before
    (only,) = (await archive.registry.listing()).files
    assert (only.level, only.rows) == (2, 18)
    table = archive.files.read(only.path, ["sample", "name"])
    keys = list(zip(table["sample"].to_pylist(), table["name"].to_pylist(), strict=True))
    assert keys == sorted(keys), "rows are sorted, so that a reader skips what it does not need"

    assert len(archive.on_disk()) == 13, "replaced files stay for queries that began before"
    await asyncio.sleep(0.01)
    assert await archive.compactor().remove_retired() == 12
    assert len(archive.on_disk()) == 1
    assert await archive.rows() == before


@pytest.mark.parametrize("everything", [True, False])
async def test_files_that_are_lost_are_written_again(
    archive: Archive, identity: FakeIdentity, everything: bool
) -> None:
    expected = await written(archive, identity, 4)
    before = await archive.rows()
    for path in archive.on_disk()[: None if everything else 1]:
        (archive.folder / path).unlink()
    await archive.writer().run_once()
    assert await archive.archived() == dict.fromkeys(expected, 1)
    assert await archive.rows() == before
    assert {f.path for f in (await archive.registry.listing()).files} <= set(archive.on_disk())
    with pytest.raises(ArchiveFencedError):
        await archive.registry.start_again(0)


async def test_an_archive_of_another_format_is_written_again(archive: Archive, identity: FakeIdentity) -> None:
    """Its files lack columns, or were made by other tables of browsers; the log has what is in them."""
    expected = await written(archive, identity, 4)
    rows = await archive.rows()
    for path in (f.path for f in (await archive.registry.listing()).files if f.kind == "events"):
        table = archive.files.read(path)
        pq.write_table(table.drop_columns(["consents"]), archive.folder / path)
    await archive.db["archive_files"].update_one({"_id": "head"}, {"$set": {"format": "4 other tables"}})
    assert await archive.rows() == rows, "meanwhile the log is read in its place"
    await archive.writer().run_once()
    assert await archive.archived() == dict.fromkeys(expected, 1)
    assert await archive.rows() == rows
    assert (await archive.db["archive_files"].find_one({"_id": "head"}) or {})["format"] == FORMAT
    before = archive.on_disk()
    await archive.writer().run_once()
    assert archive.on_disk() == before, "once is enough"


async def test_storage_that_is_no_local_folder(
    mongo: Client, db: Database, tmp_path: Path, identity: FakeIdentity
) -> None:
    """The same over a file system of pyarrow, as S3 is one."""
    archive = Archive(mongo, db, tmp_path, root="mock:///archive")
    expected = await written(archive, identity, 4)
    assert await archive.compactor().merge_small() == 3
    await asyncio.sleep(0.01)
    assert await archive.compactor().remove_retired() == 3
    assert await archive.archived() == dict.fromkeys(expected, 1)
    assert {m for _, m in await archive.rows()} == expected
    assert len([p for p, _ in archive.files.list() if p.endswith(".parquet")]) == 2


async def test_readers_never_see_half_a_compaction(
    archive: Archive, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await written(archive, identity, 3)

    async def crash(*args: Any, **kwargs: Any) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(archive.registry, "commit", crash)
        with pytest.raises(OSError, match="killed"):
            await archive.compactor().merge_small()
    assert await archive.archived() == dict.fromkeys(expected, 1)
    await archive.compactor().merge_small()
    assert await archive.archived() == dict.fromkeys(expected, 1)

    async with archive.reader.open("acme") as view:  # a query that began before the files were replaced
        await written(archive, identity, 3)
        await archive.compactor(grace_s=60).merge_small()
        await archive.compactor(grace_s=60).remove_retired()
        counted = await view.run(lambda c: c.execute("SELECT count(DISTINCT message_id) FROM events").fetchone())
        assert counted == (6,)


async def test_retiring_what_is_retired_already_is_refused(archive: Archive, identity: FakeIdentity) -> None:
    await written(archive, identity, 3)
    listing = await archive.registry.listing()
    await archive.compactor().merge_small()
    with pytest.raises(ArchiveFencedError):
        await archive.registry.commit(1, [], retired=listing.files)


async def test_random_runs_lose_and_repeat_nothing(
    archive: Archive, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events, late commits, crashes at any commit, new writers, compaction, in random order."""
    lots = random.Random(7)
    real = archive.registry.commit
    crashed = 0

    async def sometimes(*args: Any, **kwargs: Any) -> None:
        nonlocal crashed
        how = lots.random()
        if how < 0.15:
            crashed += 1
            raise OSError("killed before")
        await real(*args, **kwargs)
        if how > 0.85:
            crashed += 1
            raise OSError("killed after")

    monkeypatch.setattr(archive.registry, "commit", sometimes)
    token, expected, held_back = 1, set[str](), list[ResolvedEvent]()
    writer = archive.writer(token)
    for step in range(60):
        action = lots.random()
        try:
            if action < 0.5:
                events = [event(f"p{lots.randrange(5)}", lots.choice("ABC")) for _ in range(lots.randrange(1, 6))]
                await identity.store(events)
                expected |= ids(events)
                if lots.random() < 0.3:
                    late = event("p1", "A")
                    late.decision.sequence = await log.next_sequence(archive.db, 1, now_us())
                    held_back.append(late)
            elif action < 0.6 and held_back:
                late = held_back.pop()
                await archive.db[log.EVENTS].insert_one(log.event_document(late))
                expected.add(late.event.message_id)
            elif action < 0.85:
                await writer.run_once()
            else:
                await archive.compactor(token).merge_small()
                await archive.compactor(token).remove_retired()
        except OSError:
            token += 1
            writer = archive.writer(token)
        if step % 6 == 0:
            assert {m for _, m in await archive.rows()} == expected
    monkeypatch.setattr(archive.registry, "commit", real)
    await archive.writer(token + 1).run_once()
    assert crashed > 3
    assert await archive.archived() == dict.fromkeys(expected, 1)


async def test_a_missing_merge_survivor_of_another_workspace_is_not_mixed_up(
    archive: Archive, identity: FakeIdentity
) -> None:
    await identity.store(
        [
            event("p1", "A", message_id="m1", merges=[Merge(loser="p2", survivor="p1", loser_parts=["p2"])]),
            event("p2", "A", message_id="m2", workspace_id="other"),
        ]
    )
    await archive.writer().run_once()
    assert await archive.rows("other") == [("p2", "m2")]


async def test_a_query_whose_caller_goes_away_is_interrupted(archive: Archive) -> None:
    async with archive.reader.open("acme") as view:
        endless = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b"
        task = asyncio.create_task(view.run(lambda c: c.execute(endless).fetchone()))
        await asyncio.sleep(0.2)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
