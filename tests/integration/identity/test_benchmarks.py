"""The benchmarks of resolution at a size that takes no time: they run, and store what the service stores."""

from __future__ import annotations

import pytest
from headrace_identity.bootstrap import open_service
from headrace_identity.settings import Settings

from headrace.rpc.channel import connect
from headrace.storage.mongo.client import Client, Database
from tests.benchmarks import computed, growth, identity_work, population, resolution
from tests.support.settings import MakeSettings


@pytest.fixture(scope="module")
def works() -> list[identity_work.Work]:
    """Each kind of work, small."""
    return [make(20) for make in identity_work.WORKS]


def test_resolution_in_memory(works: list[identity_work.Work]) -> None:
    results = resolution.in_memory(works)
    assert len(results) == len(works)
    assert all(r.value > 0 and r.baseline_value > 0 for r in results)


async def test_resolution_with_the_store(mongo: Client, works: list[identity_work.Work]) -> None:
    (result,) = await resolution.with_the_store(mongo, works[:1])
    assert result.value > 0 and result.baseline_value > 0
    await mongo.drop_database(resolution.DATABASE)


async def test_growth(db: Database, make_settings: MakeSettings) -> None:
    """With tiny sizes; what is stored in bulk is found by the service."""
    settings = make_settings(Settings)
    effort = growth.Effort(lookups=10, batches=2, batch=5, micro_batches=1, micro_batch=10)
    async with open_service(settings) as running, connect(running.grpc_address, settings) as channel:
        figures = await growth.measure(db, channel, (10, 30), effort)
    assert [f.people for f in figures] == [10, 30]
    assert all(f.known > 0 and f.new > 0 and f.call[0] > 0 for f in figures)


async def test_what_is_stored_in_bulk_must_have_the_form_of_the_service(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(population, "identifier_key", lambda workspace_id, identifier: "another form")
    with pytest.raises(AssertionError):
        await population.check_form(db)


async def test_computed_traits(mongo: Client) -> None:
    results = await computed.measure(mongo, people=20, batch=10, rounds=1)
    assert len(results) == 6
    assert all(r.value > 0 for r in results)
    await mongo.drop_database(computed.DATABASE)
