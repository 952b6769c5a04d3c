"""What BigQuery's answers mean: 200 may hide rows that were refused.

https://docs.cloud.google.com/bigquery/docs/error-messages
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    Outcome,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    TransientError,
)

_PASSING = frozenset({"backendError", "internalError", "timeout", "stopped", "tableUnavailable"})
_LIMITED = frozenset({"rateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded"})
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]]{0,99}")


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    if response.status != 200:
        raise _error(response)
    answer = response.json()
    if not isinstance(answer, dict) or answer.get("kind") != "bigquery#tableDataInsertAllResponse":
        raise TransientError("BigQuery answered 200 with something that is no answer")
    items: list[Outcome] = [Delivered()] * len(request.items)
    for found in answer.get("insertErrors") or []:
        place = found.get("index", 0) if isinstance(found, dict) else None
        if not isinstance(place, int) or not 0 <= place < len(items):
            raise TransientError("BigQuery speaks of rows that were not sent")
        items[place] = _of_row(found.get("errors"))
    return Outcomes(items=tuple(items))


def problem(response: Response, columns: Mapping[str, str]) -> str:
    """What is wrong with a table; empty when all is well."""
    if response.status != 200:
        return str(_error(response))
    schema = response.json_object().get("schema")
    fields = schema.get("fields") if isinstance(schema, dict) else None
    there = {
        str(field.get("name")).lower(): str(field.get("type")) for field in fields or [] if isinstance(field, dict)
    }
    missing = [name for name in columns if name not in there]
    if missing:
        return f"the table lacks columns: {', '.join(missing)}"
    wrong = [name for name, type in columns.items() if there[name] != type]
    return f"columns have other types than they need: {', '.join(wrong)}" if wrong else ""


def _of_row(errors: Any) -> Outcome:
    first = next((one for one in errors or [] if isinstance(one, dict)), {})
    reason, place = _word(first.get("reason")) or "no reason", _word(first.get("location"))
    if reason in _PASSING | _LIMITED:
        return Retry(reason=f"BigQuery did not take the row ({reason})")
    return Rejected(reason=f"BigQuery refuses the row ({reason})", field=place)


def _error(response: Response) -> ConnectorError:
    status = response.status
    error = response.json_object().get("error")
    details = error.get("errors") if isinstance(error, dict) else None
    first = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
    reason = _word(first.get("reason"))
    said = f"BigQuery answered {status}{f' {reason}' if reason else ''}"
    if status == 429 or reason in _LIMITED:
        return RateLimited(said, response.retry_after_s())
    if status >= 500 or status == 408 or reason in _PASSING:
        return TransientError(said, response.retry_after_s())
    if status in (401, 403):
        if reason in ("billingNotEnabled", "accessNotConfigured"):
            return ConfigError(f"{said}: enable the API and billing for the project", "project")
        return AuthError(f"{said}: the service account needs roles/bigquery.dataEditor on the dataset")
    if status == 404 or 300 <= status < 400:
        return ConfigError(f"{said}: there is no such project, dataset or table", "table")
    return RecordRejected(said)


def _word(value: Any) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
