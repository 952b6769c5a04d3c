"""The BigQuery destination: a row per event, by tabledata.insertAll.

https://docs.cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/insertAll
https://docs.cloud.google.com/bigquery/docs/streaming-data-into-bigquery
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from headrace_destination_bigquery import answers
from headrace_destination_bigquery.settings import BigQuerySettings
from headrace_sdk import (
    BatchPolicy,
    Built,
    Capability,
    Check,
    Destination,
    EventBatch,
    EventItem,
    Field,
    FieldType,
    Idempotency,
    Manifest,
    Outcomes,
    Request,
    Response,
    ServiceAccount,
    iso_time,
)

FIELDS = (
    Field(name="user_id", title="User id", example="u-1",
          default="profile.identifiers.user_id[0] || event.identifiers.user_id[0]"),
    Field(name="anonymous_id", title="Anonymous id", anonymous=True, default="event.identifiers.anonymous_id[0]"),
    Field(name="email", title="E-mail", example="ada@example.com",
          default="profile.identifiers.email[0] || profile.traits.email || event.identifiers.email[0]"),
    Field(name="columns", title="Columns of your own", type=FieldType.OBJECT,
          description="Column to value, beside and over those of the README."),
)  # fmt: skip
COLUMNS = (
    ("message_id", "STRING"), ("type", "STRING"), ("name", "STRING"), ("time", "TIMESTAMP"),
    ("received_at", "TIMESTAMP"), ("source_id", "STRING"), ("profile_id", "STRING"), ("user_id", "STRING"),
    ("anonymous_id", "STRING"), ("email", "STRING"), ("traits", "JSON"), ("properties", "JSON"), ("context", "JSON"),
)  # fmt: skip
"""Columns of the table, with their types."""

MANIFEST = Manifest(
    name="bigquery",
    title="BigQuery",
    description="Writes a row per event.",
    factory="headrace_destination_bigquery.destination:BigQuery",
    settings=BigQuerySettings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.CHECK}),
    fields=FIELDS,
    # https://docs.cloud.google.com/bigquery/quotas#streaming_inserts: 10 MB and 50,000 rows, best with 500.
    batch=BatchPolicy(max_items=500, max_bytes=9_500_000, max_wait_s=1.0),
    idempotency=Idempotency.KEY,
    auth=ServiceAccount(setting="service_account", scopes=("https://www.googleapis.com/auth/bigquery",)),
    not_deleted="All rows of the person: delete them by a statement on the column profile_id.",
)


class BigQuery(Destination[BigQuerySettings]):
    """Writes rows."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """One request with a row per event."""
        body = {
            "skipInvalidRows": True,  # one bad row must not keep the others out
            "rows": [{"insertId": event.message_id[:128], "json": _row(event)} for event in batch.events],
        }
        yield Request(
            method="POST",
            url=f"{self._table()}/insertAll",
            headers={"Content-Type": "application/json; charset=utf-8"},
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
            items=tuple(range(len(batch.events))),
        )

    def read(self, request: Request, response: Response) -> Outcomes:
        """What BigQuery's answer means, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """Whether the account may read the table, and the table has the columns."""
        yield Check(title="The table is there and has the columns", request=Request(
            method="GET", url=self._table(), items=()
        ))  # fmt: skip

    def read_check(self, check: Check, response: Response) -> str:
        """What is wrong with the table."""
        return answers.problem(response, dict(COLUMNS))

    def _table(self) -> str:
        chosen = self.settings
        path = f"projects/{chosen.project}/datasets/{chosen.dataset}/tables/{chosen.table}"
        return f"{chosen.base_url}/bigquery/v2/{path}"


def _row(event: EventItem) -> dict[str, Any]:
    own = event.fields.get("columns")
    row = {
        "message_id": event.message_id,
        "type": event.kind,
        "name": event.name,
        "time": iso_time(event.timestamp_us),
        "received_at": iso_time(event.received_at_us),
        "source_id": event.source_id,
        "profile_id": event.profile.id if event.profile is not None else None,
        **{name: _text(event.fields.get(name)) for name in ("user_id", "anonymous_id", "email")},
        # A column of type JSON takes JSON text.
        **{name: _json(getattr(event, name)) for name in ("traits", "properties", "context")},
        **(own if isinstance(own, dict) else {}),
    }
    return {name: value for name, value in row.items() if value not in (None, "")}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
