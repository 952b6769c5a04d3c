"""Looks for texts in everything that a running platform keeps: collections, Redis, archive, logs, spans.

Compressed parts are unpacked. What is found is told by place, with the names of the texts, never with what is around.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pymongo
import redis
import zstandard
from bson import encode
from bson.binary import Binary

from tests.support.otlp import SeenSpan
from tests.support.up import Up

MONGO_AT, REDIS_AT = 31, 32
"""Ports of the stores, from the port base."""

Found = dict[str, set[str]]
"""Names of the texts that were found, by place."""


@dataclass
class Search:
    """Looks for texts by name."""

    texts: Mapping[str, str]
    found: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def look(self, place: str, data: bytes) -> None:
        """Look through bytes."""
        for name, text in self.texts.items():
            if text.encode() in data:
                self.found[place].add(name)

    def mongo(self, up: Up) -> None:
        """Look through every document of every collection, and whatever is packed in it."""
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            f"mongodb://127.0.0.1:{_port(up, MONGO_AT)}/?directConnection=true"
        )
        with client:
            database = client["headrace"]
            for name in database.list_collection_names():
                for document in database[name].find():
                    self.look(f"mongo:{name}", encode(document))
                    for packed in _binaries(document):
                        self.look(f"mongo:{name}", packed)

    def redis(self, up: Up) -> None:
        """Look through every key, whatever it holds."""
        with redis.Redis(port=_port(up, REDIS_AT)) as client:
            for key in client.scan_iter(count=1000):
                kind = client.type(key)
                value: Any
                if kind == b"stream":
                    value = client.xrange(key)
                elif kind == b"hash":
                    value = client.hgetall(key)
                elif kind == b"list":
                    value = client.lrange(key, 0, -1)
                elif kind == b"set":
                    value = client.smembers(key)
                elif kind == b"zset":
                    value = client.zrange(key, 0, -1)
                else:
                    value = client.get(key)
                family = key.decode().rstrip("0123456789").rstrip(":")
                self.look(f"redis:{family}", key)
                for piece in _pieces(value):
                    self.look(f"redis:{family}", piece)

    def archive(self, up: Up) -> None:
        """Look through every file of the archive, its values and its bytes."""
        for path in _files(up.folder / "data" / "archive"):
            self.look("archive", path.read_bytes())
            if path.suffix == ".parquet":
                self.look("archive", repr(pq.read_table(path).to_pylist()).encode())

    def logs(self, up: Up) -> None:
        """Look through all that services and stores wrote about their work."""
        for path in [*_files(up.folder / "data" / "logs"), up.folder / "up.log"]:
            self.look(f"log:{path.name}", path.read_bytes())

    def spans(self, spans: Iterable[SeenSpan]) -> None:
        """Look through the spans that the platform sent."""
        for span in spans:
            self.look(f"span:{span.service}", json.dumps([span.name, span.attributes], ensure_ascii=False).encode())


def traces(up: Up, spans: Iterable[SeenSpan], texts: Mapping[str, str]) -> Found:
    """Where texts are found.

    Args:
        up: The platform.
        spans: All that it sent.
        texts: What to look for, by name.
    """
    search = Search(texts)
    search.mongo(up)
    search.redis(up)
    search.archive(up)
    search.logs(up)
    search.spans(spans)
    return dict(search.found)


def _port(up: Up, offset: int) -> int:
    return int(urlsplit(up.ready["ingest_http"]).port or 0) + offset


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _binaries(value: Any) -> Iterator[bytes]:
    """What is packed in the binary values of a document."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _binaries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _binaries(inner)
    elif isinstance(value, bytes | Binary):
        data = bytes(value)
        for unpack in (
            zstandard.ZstdDecompressor().decompress,
            zlib.decompress,
            lambda d: zlib.decompress(d, wbits=31),
        ):
            try:
                yield unpack(data)
            except (zstandard.ZstdError, zlib.error):
                continue


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _pieces(key)
            yield from _pieces(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _pieces(inner)
