"""A real mongod (one-node replica set) and a real redis-server on loopback, with a data folder of their own.

Both are started with the durability that Headrace relies on: MongoDB journaled, Redis with an append-only
file. They ask for no password: they listen on 127.0.0.1 only, for one machine with one user.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace.embedded.binaries import Binaries, find_binaries
from headrace.embedded.errors import StartFailed
from headrace.embedded.processes import ChildProcess, end_leftover, free_port, last_output

REPLICA_SET = "headrace"

_POLL_S = 0.02
_NOT_YET_INITIALIZED = 94
_INVALID_CONFIG = 93
_PORT_TRIES = 5


class EmbeddedStores:
    """The two stores on one data folder; start, stop, and for tests of failure kill and restart."""

    def __init__(
        self,
        data_dir: Path,
        *,
        mongo_port: int = 0,
        redis_port: int = 0,
        cache_gb: float = 0.5,
        binaries: Binaries | None = None,
    ) -> None:
        """Describe the stores; nothing is started yet.

        Args:
            data_dir: Folder for data and logs; made when missing, kept at the end.
            mongo_port: Port of MongoDB; 0 takes a free one at the first start and keeps it.
            redis_port: Port of Redis; likewise.
            cache_gb: Memory that MongoDB may use as cache, in GB (at least 0.25).
            binaries: The programs; None finds them.
        """
        self.data_dir = data_dir.absolute()
        self.mongo_port = mongo_port
        self.redis_port = redis_port
        self._any_mongo_port = mongo_port == 0
        self._any_redis_port = redis_port == 0
        self._cache_gb = cache_gb
        self._binaries = binaries
        self.mongod: ChildProcess | None = None
        self.redis_server: ChildProcess | None = None

    @property
    def mongo_url(self) -> str:
        """Connection string of MongoDB."""
        return f"mongodb://127.0.0.1:{self.mongo_port}/?replicaSet={REPLICA_SET}"

    @property
    def redis_url(self) -> str:
        """Connection string of Redis."""
        return f"redis://127.0.0.1:{self.redis_port}/0"

    def start(self, timeout_s: float = 30.0) -> None:
        """Start what does not run, and wait until both serve; safe to call again.

        Raises:
            BinaryNotFound: A program is missing.
            StartFailed: One ended or did not serve within timeout_s seconds; nothing of it is left running.
        """
        for tries_left in reversed(range(_PORT_TRIES)):
            try:
                redis_server, mongod = self.spawn_redis(), self.spawn_mongod()
                self._wait(redis_server, self.redis_serves, timeout_s)
                self._wait(mongod, self.mongod_serves, timeout_s)
            except StartFailed:
                # A port that was free a moment ago may have been taken meanwhile: then take others.
                taken = self._drop_dead_free_ports()
                if not (taken and tries_left):
                    self.stop()
                    raise
            else:
                return

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stop both cleanly, and by force what has not ended after timeout_s seconds; data is kept."""
        if self.redis_server is not None:
            self.redis_server.stop(timeout_s)
            self.redis_server = None
        if self.mongod is not None:
            self.mongod.stop(timeout_s)  # SIGTERM is a clean shutdown of mongod: checkpoint, then exit
            self.mongod = None

    def kill_mongod(self) -> None:
        """End mongod as a crash would."""
        if self.mongod is not None:
            self.mongod.kill()

    def kill_redis(self) -> None:
        """End redis-server as a crash would."""
        if self.redis_server is not None:
            self.redis_server.kill()

    def restart_mongod(self, timeout_s: float = 30.0) -> None:
        """Start mongod again on the same port and data, whether it runs or was killed."""
        self.kill_mongod()
        self._wait(self.spawn_mongod(), self.mongod_serves, timeout_s)

    def restart_redis(self, timeout_s: float = 30.0) -> None:
        """Start redis-server again on the same port and data, whether it runs or was killed."""
        self.kill_redis()
        self._wait(self.spawn_redis(), self.redis_serves, timeout_s)

    def restart(self, timeout_s: float = 30.0) -> None:
        """Start both again on the same ports and data."""
        self.restart_redis(timeout_s)
        self.restart_mongod(timeout_s)

    def spawn_mongod(self) -> ChildProcess:
        """Start mongod if it does not run, without waiting until it serves."""
        if self.mongod is not None and self.mongod.is_running:
            return self.mongod
        folder = self._folder("mongo")
        self.mongo_port = self.mongo_port or free_port()
        command = [
            str(self._programs().mongod),
            *("--replSet", REPLICA_SET),
            *("--bind_ip", "127.0.0.1", "--port", str(self.mongo_port), "--nounixsocket"),
            *("--dbpath", str(folder)),
            *("--logpath", str(self._folder("logs") / "mongod.log"), "--logappend", "--quiet"),
            *("--wiredTigerCacheSizeGB", str(self._cache_gb)),
            *("--oplogSize", "512"),
            # Nobody reads at past moments, and keeping five minutes of history halves the rate of updates.
            *("--setParameter", "minSnapshotHistoryWindowInSeconds=0"),
            # A transaction that a killed process left open blocks the people in it until it is aborted.
            *("--setParameter", "transactionLifetimeLimitSeconds=5"),
            # Diagnostics for the vendor's support: files and half a second of every start.
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # The log of slow operations quotes them, and so what people's identifiers are.
            *("--slowms", "1000000"),
            # A lone primary has nobody to hand over to.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
        ]
        self.mongod = self._spawn("mongod", command)
        return self.mongod

    def spawn_redis(self) -> ChildProcess:
        """Start redis-server if it does not run, without waiting until it serves."""
        if self.redis_server is not None and self.redis_server.is_running:
            return self.redis_server
        folder = self._folder("redis")
        self.redis_port = self.redis_port or free_port()
        command = [
            str(self._programs().redis_server),
            *("--bind", "127.0.0.1", "--port", str(self.redis_port)),
            *("--dir", str(folder), "--logfile", str(self._folder("logs") / "redis.log"), "--loglevel", "notice"),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            # A torn last write after a crash is cut off; what was acknowledged is in MongoDB anyway.
            *("--aof-load-truncated", "yes"),
        ]
        self.redis_server = self._spawn("redis-server", command)
        return self.redis_server

    def redis_serves(self) -> bool:
        """Whether Redis has loaded its data and answers."""
        client = redis.Redis(
            port=self.redis_port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        )
        try:
            client.ping()
        except redis.RedisError:  # not listening yet, or still loading
            return False
        finally:
            client.close()
        return True

    def mongod_serves(self) -> bool:
        """Whether MongoDB is the primary of its replica set; makes the set when there is none yet."""
        client: MongoClient[dict[str, Any]] = MongoClient(
            "127.0.0.1", self.mongo_port, directConnection=True, serverSelectionTimeoutMS=50, connectTimeoutMS=1000
        )
        try:
            client.admin.command("ping")
            self._ensure_replica_set(client)
            return bool(client.admin.command("hello").get("isWritablePrimary"))
        except PyMongoError:  # not listening yet, or changing its state
            return False
        finally:
            client.close()

    def _ensure_replica_set(self, client: MongoClient[dict[str, Any]]) -> None:
        member = {"_id": 0, "host": f"127.0.0.1:{self.mongo_port}"}
        try:
            client.admin.command("replSetGetStatus")
        except OperationFailure as error:
            if error.code == _NOT_YET_INITIALIZED:
                client.admin.command({"replSetInitiate": {"_id": REPLICA_SET, "members": [member]}})
            elif error.code == _INVALID_CONFIG:
                # The data was made under another port: the set must learn where its only member is now.
                config = client.admin.command("replSetGetConfig")["config"]
                config["members"] = [{**config["members"][0], **member}]
                config["version"] += 1
                client.admin.command({"replSetReconfig": config, "force": True})
            else:
                raise

    def _wait(self, process: ChildProcess, serves: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not serves():
            status = process.exit_status
            if status is not None:
                raise StartFailed(
                    f"{process.name} ended with status {status} while starting; see {self.data_dir / 'logs'}: "
                    f"{last_output(process.log_path)}"
                )
            if time.monotonic() > deadline:
                raise StartFailed(f"{process.name} does not serve; see {self.data_dir / 'logs'}")
            time.sleep(_POLL_S)

    def _spawn(self, name: str, command: list[str]) -> ChildProcess:
        pid_path = self._folder("pids") / f"{name}.pid"
        end_leftover(pid_path)
        log_path = self._folder("logs") / f"{name}.out"
        return ChildProcess(name, command, log_path=log_path, pid_path=pid_path)

    def _drop_dead_free_ports(self) -> bool:
        """Forget the free ports of servers that ended; whether there was one."""
        dropped = False
        if self._any_mongo_port and self.mongod is not None and not self.mongod.is_running:
            self.mongo_port, dropped = 0, True
        if self._any_redis_port and self.redis_server is not None and not self.redis_server.is_running:
            self.redis_port, dropped = 0, True
        return dropped

    def _programs(self) -> Binaries:
        if self._binaries is None:
            self._binaries = find_binaries()
        return self._binaries

    def _folder(self, name: str) -> Path:
        folder = self.data_dir / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
