"""The country of an IP address, from a file in MaxMind's DB format that the operator brings.

Nothing is asked over a network. The file is read into a private copy, so that whoever replaces it, also by writing over
it, never touches what is in use; a replaced file is taken within seconds, off the way of events.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import maxminddb

from headrace.telemetry.logs import get_logger
from headrace_ingest import metrics
from headrace_ingest.location import MOST, address_of
from headrace_ingest.metrics import BROKEN, FOUND, NO_ADDRESS, UNKNOWN

log = get_logger(__name__)

_IN_MEMORY = 50_000
"""Answers that are remembered: about 10 MB. A visitor sends many events from one address."""
_LOOKED_AT = 1_000
"""Networks of a new table that are looked at for countries."""
_CODE = re.compile("[A-Z]{2}")
_NO_COUNTRIES = frozenset({"AP", "EU", "XX", "ZZ"})
"""Codes that tables use for "Asia or the Pacific", "Europe" and "unknown"."""


class UnreadableTable(ValueError):
    """A file cannot be used as a table of countries; the text says which and why."""


class _Signature(NamedTuple):
    """What changes when a file does."""

    modified_ns: int
    size: int
    inode: int


class _Answer(NamedTuple):
    outcome: str
    country: str


class CountryTable:
    """A table that has been read; it never changes."""

    def __init__(self, reader: maxminddb.Reader) -> None:
        """Answer from a reader, and remember answers."""
        self._reader = reader
        self._ipv4_only = reader.metadata().ip_version == 4
        self.built_s: int = reader.metadata().build_epoch
        """When it was built, in seconds since 1970."""
        self.answer_of = lru_cache(maxsize=_IN_MEMORY)(self._answer_of)
        """What an address, as somebody wrote it, gives."""

    def names_countries(self) -> bool:
        """Whether some of the first networks have a country; others, of providers for instance, have none.

        Raises:
            maxminddb.InvalidDatabaseError: It is broken.
        """
        return any(_code_in(record) for _, record in islice(self._reader, _LOOKED_AT))

    def _answer_of(self, said: str) -> _Answer:
        address = address_of(said)
        if address is None:
            return _Answer(NO_ADDRESS, "")
        if address.version == 6 and self._ipv4_only:
            return _Answer(UNKNOWN, "")
        try:
            country = _code_in(self._reader.get(address))
        except maxminddb.InvalidDatabaseError:  # an event is worth more than its country; the metric says it
            return _Answer(BROKEN, "")
        return _Answer(FOUND, country) if country else _Answer(UNKNOWN, "")


def read_table(path: Path) -> CountryTable:
    """Read a file.

    Raises:
        UnreadableTable: It cannot be read, is no file in MaxMind's DB format, or names no countries.
    """
    try:
        # The copy's name is gone at the end of the block; what is mapped of it stays as long as the reader.
        with path.open("rb") as file, tempfile.NamedTemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            table = CountryTable(maxminddb.open_database(copy.name))
            if table.names_countries():
                return table
    except OSError as error:
        raise UnreadableTable(f"{path} cannot be read: {error.strerror}") from error
    except (maxminddb.InvalidDatabaseError, ValueError) as error:
        raise UnreadableTable(f"{path} is no file in MaxMind's DB format, or not a whole one") from error
    raise UnreadableTable(f"{path} names no countries: a table of another kind?")


class Countries:
    """The table in use, and the file that it is read from."""

    def __init__(self, path: Path, *, every_s: float) -> None:
        """Read the file.

        Args:
            path: The file.
            every_s: How often to look whether it was replaced, in seconds.

        Raises:
            UnreadableTable: See `read_table`.
        """
        self._path = path
        self._every_s = every_s
        self._signature = _signature(path)
        self._table = read_table(path)

    @property
    def built_s(self) -> int:
        """When the table in use was built, in seconds since 1970."""
        return self._table.built_s

    def country_of(self, said: Any) -> str:
        """The country of an address as somebody wrote it, in two letters; "" when the table has none."""
        outcome, country = self._table.answer_of(said[:MOST]) if isinstance(said, str) else (NO_ADDRESS, "")
        metrics.tally.located(outcome)
        return country

    async def follow_file(self) -> None:
        """Take the file anew whenever it was replaced, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Take the file anew if it was replaced; one that cannot be read changes nothing, and is tried once."""
        # Before it is read: what is written meanwhile is seen as another change by the next look.
        signature = await asyncio.to_thread(_signature, self._path)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._table = await asyncio.to_thread(read_table, self._path)
        except UnreadableTable as error:
            log.warning("the new country table is not taken, the one before stays", why=str(error))
        else:
            log.info("the country table was replaced", file=str(self._path), built_s=self._table.built_s)


def _signature(path: Path) -> _Signature | None:
    """None while there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _Signature(found.st_mtime_ns, found.st_size, found.st_ino)


def _code_in(record: Any) -> str:
    """The country of a record, by `country.iso_code` (MaxMind, DB-IP) or `country_code` (others); "" for none."""
    if not isinstance(record, Mapping):
        return ""
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, Mapping) else record.get("country_code")
    if not isinstance(code, str) or _CODE.fullmatch(code) is None or code in _NO_COUNTRIES:
        return ""
    return code
