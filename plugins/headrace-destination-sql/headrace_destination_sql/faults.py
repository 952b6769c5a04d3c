"""What databases' errors mean, by SQLSTATE or the driver's number. Their texts quote values and are never passed on.

https://www.postgresql.org/docs/current/errcodes-appendix.html
https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html
https://www.sqlite.org/rescode.html
"""

from __future__ import annotations

import json
import re

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    Outcomes,
    Request,
    Response,
    TransientError,
)

AWAY, DENIED, FORBIDDEN, MISSING_TABLE, MISSING_COLUMN, MISSING_DATABASE, REFUSED, BUSY = (
    "away", "denied", "forbidden", "missing_table", "missing_column", "missing_database", "refused", "busy",
)  # fmt: skip

_OF_STATE = {
    "28000": DENIED, "28P01": DENIED, "42501": FORBIDDEN, "25006": FORBIDDEN, "3D000": MISSING_DATABASE,
    "3F000": MISSING_TABLE, "42P01": MISSING_TABLE, "42703": MISSING_COLUMN, "40001": BUSY, "40P01": BUSY,
    "55P03": BUSY,
}  # fmt: skip
_OF_STATE_CLASS = {"08": AWAY, "53": AWAY, "57": AWAY, "58": AWAY, "22": REFUSED, "23": REFUSED}
_OF_NUMBER = {
    1045: DENIED, 1044: FORBIDDEN, 1142: FORBIDDEN, 1143: FORBIDDEN, 1049: MISSING_DATABASE, 1146: MISSING_TABLE,
    1054: MISSING_COLUMN, 1205: BUSY, 1213: BUSY, 1290: FORBIDDEN, 2002: AWAY, 2003: AWAY, 2006: AWAY, 2013: AWAY,
}  # fmt: skip
_OF_WORDS = (
    (re.compile(r"no such table"), MISSING_TABLE),
    (re.compile(r"has no column|no such column"), MISSING_COLUMN),
    (re.compile(r"readonly database|unable to open"), FORBIDDEN),
    (re.compile(r"locked"), BUSY),
)
_STATUS = {AWAY: 503, BUSY: 503, DENIED: 401, FORBIDDEN: 403, REFUSED: 422}
_SAID: dict[str, tuple[type[ConnectorError], str]] = {
    AWAY: (TransientError, "the database cannot be reached"),
    BUSY: (TransientError, "the database is busy with another transaction"),
    DENIED: (AuthError, "the database refuses the user or the password"),
    FORBIDDEN: (ConfigError, "the user may not do this in the database: grant it the rights"),
    MISSING_DATABASE: (ConfigError, "there is no such database"),
    MISSING_TABLE: (ConfigError, "a table or schema is missing: create it, or let create_tables do so"),
    MISSING_COLUMN: (ConfigError, "a table lacks a column: add it, or name another table"),
}


def of(error: SQLAlchemyError | OSError) -> str:
    """What an error means."""
    if not isinstance(error, DBAPIError):
        return AWAY if isinstance(error, OSError) else REFUSED
    state, number = _code(error)
    found = _OF_STATE.get(state) or _OF_STATE_CLASS.get(state[:2]) or _OF_NUMBER.get(number)
    if found:
        return found
    if isinstance(error, OperationalError):
        for words, meaning in _OF_WORDS:
            if words.search(str(error.orig)):
                return meaning
    if isinstance(error, IntegrityError | DataError):
        return REFUSED
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
        return AWAY
    return REFUSED


def response(error: SQLAlchemyError | OSError) -> Response:
    """An error as the answer to a request, without anything that the database quotes."""
    meaning = of(error)
    state, number = _code(error) if isinstance(error, DBAPIError) else ("", 0)
    body = {"error": meaning, "code": state or (str(number) if number else type(error).__name__)}
    return Response(status=_STATUS.get(meaning, 404), body=json.dumps(body).encode())


def outcomes(request: Request, answer: Response) -> Outcomes:
    """One outcome per item.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    if answer.status == 200:
        return Outcomes.every(request, Delivered())
    said, code = answer.json_object().get("error"), answer.json_object().get("code")
    if said in _SAID:
        kind, reason = _SAID[said]
        raise kind(f"{reason} ({code})")
    # The transaction was rolled back: nothing of it is there.
    return Outcomes.refused(request, f"the database refuses a value ({code})")


def problem(answer: Response) -> str:
    """What the answer to a check means; empty when all is well."""
    if answer.status == 200:
        return ""
    said, code = answer.json_object().get("error"), answer.json_object().get("code")
    return f"{_SAID[said][1] if said in _SAID else 'the database refuses the check'} ({code})"


def _code(error: DBAPIError) -> tuple[str, int]:
    """SQLSTATE, and the driver's number."""
    original = error.orig
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    first = original.args[0] if original is not None and original.args else None
    return (state if isinstance(state, str) else ""), (first if isinstance(first, int) else 0)
