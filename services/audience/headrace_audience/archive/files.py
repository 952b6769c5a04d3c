"""Reading and writing files of the archive, in a local folder or in S3-compatible storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from headrace_audience.archive.samples import EVERYBODY

ROW_GROUP = 65_536
SAMPLED_ROWS = 16_384
"""Files of fewer rows are read whole for a sample."""
_WITHOUT_FOLDERS = ("s3", "gcs", "abfs")


class Files:
    """Files below a root. All methods block: call them in a thread."""

    def __init__(self, root: str) -> None:
        """Use a root.

        Args:
            root: A folder, made when missing, or a URL that pyarrow knows, such as s3://bucket/prefix.
        """
        self.is_local = "://" not in root
        if self.is_local:
            folder = Path(root).expanduser().absolute()
            folder.mkdir(parents=True, exist_ok=True)
            self._base, self._fs = str(folder), fs.LocalFileSystem()
        else:
            self._fs, self._base = fs.FileSystem.from_uri(root)
        self.filesystem: fs.FileSystem = self._fs

    def full_path(self, path: str) -> str:
        """The path as the file system knows it."""
        return f"{self._base}/{path}"

    def write(self, path: str, table: pa.Table, sort_keys: Sequence[tuple[str, str]]) -> int:
        """Write a table sorted; the file is there whole or not at all, and on disk. Returns its size in bytes."""
        ordered = table.sort_by(list(sort_keys))
        return self._put(path, lambda stream: _write_table(ordered, stream))

    def write_bytes(self, path: str, content: bytes) -> int:
        """Write a small file, in place of an earlier one; it is there whole or not at all."""
        return self._put(path, lambda stream: stream.write(content))

    def _put(self, path: str, write: Callable[[Any], object]) -> int:
        target = self.full_path(path)
        if not self.is_local:
            if self._fs.type_name not in _WITHOUT_FOLDERS:
                self._fs.create_dir(target.rpartition("/")[0], recursive=True)
            with self._fs.open_output_stream(target) as stream:
                write(stream)  # an object in S3 appears when the upload is complete
            return int(self._fs.get_file_info(target).size)
        final = Path(target)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.partial")  # readers of *.parquet never see it
        with partial.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(final)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return final.stat().st_size

    def read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table, or some columns of it."""
        return pq.read_table(
            self.full_path(path), columns=list(columns) if columns else None, filesystem=self._fs, partitioning=None
        )

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files; those that are gone already are no error."""
        for path in paths:
            target = self.full_path(path)
            if self._fs.get_file_info(target).type != fs.FileType.NotFound:
                self._fs.delete_file(target)

    def list(self) -> Iterator[tuple[str, float]]:
        """(path, time of last change in seconds since 1970) of each file below the root."""
        selector = fs.FileSelector(self._base, recursive=True, allow_not_found=True)
        for info in self._fs.get_file_info(selector):
            if info.type == fs.FileType.File:
                yield info.path[len(self._base) :].lstrip("/"), (info.mtime_ns or 0) / 1e9


def _write_table(table: pa.Table, stream: Any) -> None:
    dictionary: Any = ["name", "kind", "source_id", "profile"] if "name" in table.column_names else True
    with pq.ParquetWriter(
        stream, table.schema, compression="zstd", use_dictionary=dictionary, write_statistics=True
    ) as writer:
        for start, end in _apart(table):
            writer.write_table(table.slice(start, end - start), row_group_size=ROW_GROUP)


def _apart(table: pa.Table) -> list[tuple[int, int]]:
    """Where row groups begin and end at least: each sample of a large file has its own, so that it is read alone."""
    if table.num_rows < SAMPLED_ROWS or "sample" not in table.column_names:
        return [(0, table.num_rows)]
    bounds = np.searchsorted(table["sample"].to_numpy(), range(1, EVERYBODY + 1))
    edges = sorted({0, *map(int, bounds), table.num_rows})
    return list(pairwise(edges))
