"""What databases' errors mean, by their codes."""

from __future__ import annotations

import sqlite3

import pytest
from headrace_destination_sql import faults
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from headrace_sdk import AuthError, ConfigError, Rejected, Request, TransientError

REQUEST = Request(method="UPSERT", url="sql://db.example/shop", items=(0, 1))


class Coded(Exception):
    """An error of a driver that knows SQLSTATE."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("Key (email)=(ada@example.com) is bad")
        self.sqlstate = sqlstate


def error(kind: type[DBAPIError], original: Exception) -> DBAPIError:
    return kind("INSERT ...", {"email": "ada@example.com"}, original)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (error(ProgrammingError, Coded("28P01")), AuthError),
        (error(ProgrammingError, Coded("42501")), ConfigError),
        (error(ProgrammingError, Coded("42P01")), ConfigError),
        (error(DBAPIError, Coded("40P01")), TransientError),
        (error(DBAPIError, Coded("57P01")), TransientError),
        (error(OperationalError, Exception(1045, "denied")), AuthError),
        (error(OperationalError, Exception(1213, "deadlock")), TransientError),
        (error(ProgrammingError, Exception(1146, "no table")), ConfigError),
        (error(OperationalError, sqlite3.OperationalError("no such table: x")), ConfigError),
        (error(OperationalError, sqlite3.OperationalError("database is locked")), TransientError),
        (error(InterfaceError, Exception("closed")), TransientError),
        (ConnectionRefusedError(), TransientError),
    ],
)
def test_errors_of_the_whole(failure: DBAPIError | OSError, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        faults.outcomes(REQUEST, faults.response(failure))
    assert "ada@" not in str(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        error(DBAPIError, Coded("22001")),
        error(IntegrityError, Coded("23505")),
        error(IntegrityError, sqlite3.IntegrityError("UNIQUE constraint failed: ada@example.com")),
        error(ProgrammingError, Exception("unheard of")),
    ],
)
def test_errors_of_values(failure: DBAPIError) -> None:
    answer = faults.response(failure)
    found = faults.outcomes(REQUEST, answer)
    assert found.refused_whole and all(isinstance(one, Rejected) for one in found.items) and len(found.items) == 2
    assert b"ada@" not in answer.body and faults.problem(answer).startswith("the database refuses the check")
