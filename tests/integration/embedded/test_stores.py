from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pymongo import MongoClient, WriteConcern

from headrace.embedded.binaries import Binaries
from headrace.embedded.errors import StartFailed
from headrace.embedded.processes import free_port
from headrace.embedded.stores import EmbeddedStores

DURABLE = WriteConcern(w="majority", j=True)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStores]:
    """Stores that these tests may kill."""
    running = EmbeddedStores(tmp_path_factory.mktemp("own"))
    running.start()
    yield running
    running.stop()


def write(stores: EmbeddedStores, key: str) -> None:
    with MongoClient[dict[str, Any]](stores.mongo_url) as client:
        client["kept"].get_collection("things", write_concern=DURABLE).insert_one({"_id": key})
    with redis.Redis.from_url(stores.redis_url) as client_of_redis:
        client_of_redis.xadd("stream", {b"b": key.encode()})


def read(stores: EmbeddedStores) -> tuple[list[Any], list[str]]:
    with MongoClient[dict[str, Any]](stores.mongo_url) as client:
        things = [d["_id"] for d in client["kept"]["things"].find().sort("_id")]
    with redis.Redis.from_url(stores.redis_url) as client_of_redis:
        entries: Any = client_of_redis.xrange("stream")
    return things, sorted(fields[b"b"].decode() for _, fields in entries)


def test_acknowledged_writes_survive_kill_stop_and_a_change_of_ports(tmp_path: Path) -> None:
    stores = EmbeddedStores(tmp_path)
    stores.start()
    try:
        write(stores, "1")
        stores.kill_mongod()
        stores.kill_redis()
        stores.start()
        assert read(stores) == (["1"], ["1"])
        write(stores, "2")
        stores.stop()
        assert not list((tmp_path / "pids").iterdir())
        ports = (stores.mongo_port, stores.redis_port)
        moved = EmbeddedStores(tmp_path, mongo_port=free_port(), redis_port=free_port())
        moved.start()
        try:
            assert ports != (moved.mongo_port, moved.redis_port)
            assert read(moved) == (["1", "2"], ["1", "2"])
            write(moved, "3")
        finally:
            moved.stop()
    finally:
        stores.stop()


def test_a_restart_keeps_addresses_and_clients(own: EmbeddedStores) -> None:
    addresses = (own.mongo_url, own.redis_url)
    with MongoClient[dict[str, Any]](own.mongo_url) as client, redis.Redis.from_url(own.redis_url) as client_of_redis:
        client["a"]["b"].insert_one({})
        client_of_redis.set("a", "b")
        own.restart()
        assert client["a"]["b"].count_documents({}) == 1
        assert client_of_redis.get("a") == b"b"
    assert (own.mongo_url, own.redis_url) == addresses


def test_transactions_do_not_disturb_one_another_without_snapshot_history(own: EmbeddedStores) -> None:
    """`minSnapshotHistoryWindowInSeconds=0` keeps no past; a transaction under way must still see its own moment."""
    with MongoClient[dict[str, Any]](own.mongo_url) as client:
        things = client["history"].get_collection("things", write_concern=DURABLE)
        things.insert_many([{"_id": n, "n": 0} for n in range(300)])
        stop = threading.Event()

        def update() -> None:
            while not stop.is_set():
                things.update_many({}, {"$inc": {"n": 1}})

        writer = threading.Thread(target=update)
        writer.start()
        try:
            for _ in range(20):
                with client.start_session() as session, session.start_transaction():
                    first = [d["n"] for d in things.find({}, session=session, batch_size=50)]
                    assert first == [d["n"] for d in things.find({}, session=session, batch_size=50)]
        finally:
            stop.set()
            writer.join()


def test_a_store_that_cannot_start_says_where_to_look(tmp_path: Path) -> None:
    refusing = tmp_path / "refusing"
    refusing.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    refusing.chmod(0o755)
    stores = EmbeddedStores(
        tmp_path / "data", binaries=Binaries(refusing, refusing), mongo_port=free_port(), redis_port=free_port()
    )
    with pytest.raises(StartFailed) as failed:
        stores.start()
    message = f"redis-server ended with status 3 while starting; see {tmp_path / 'data' / 'logs'}: no such luck"
    assert str(failed.value) == message
    assert stores.mongod is None
    assert stores.redis_server is None


def test_a_store_that_never_serves_is_given_up(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    stores = EmbeddedStores(tmp_path / "data", binaries=Binaries(silent, silent))
    with pytest.raises(StartFailed, match="redis-server does not serve"):
        stores.start(timeout_s=0.2)
    assert not list((tmp_path / "data" / "pids").iterdir())
