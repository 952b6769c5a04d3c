"""Rows of people at TikTok: hashed, independent of the order of values, each accounted for once."""

from __future__ import annotations

import json
from typing import Any

from headrace_destination_tiktok_audience.destination import TikTokAudience
from headrace_destination_tiktok_audience.people import FIELDS, SCHEMA, rows_of
from headrace_destination_tiktok_audience.settings import TikTokAudienceSettings
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import MemberBatch, RecordRejected, Request, Row
from headrace_sdk.values import is_sha256

VALUES = st.emails() | st.integers(10**9, 10**12).map("+{}".format) | st.uuids().map(str) | st.text(max_size=8)
PEOPLE = st.fixed_dictionaries({}, optional={field.name: st.lists(VALUES, max_size=3) for field in FIELDS})


@given(st.lists(PEOPLE, max_size=5), st.randoms(use_true_random=False), st.booleans())
def test_rows_and_requests(people: list[dict[str, list[str]]], random: Any, adding: bool) -> None:
    rows: list[Row] = []
    for fields in people:
        shuffled = {name: random.sample(values, len(values)) for name, values in fields.items()}
        try:
            found = rows_of(fields)
        except RecordRejected:
            continue
        assert found == rows_of(shuffled)
        rows += found
    settings = TikTokAudienceSettings.model_validate({"access_token": "t", "advertiser_id": "1", "audience_id": "2"})
    there, batch = TikTokAudience(settings), MemberBatch(rows=tuple(rows), now_us=0)
    requests = list((there.add_members if adding else there.remove_members)(batch))
    assert [place for one in requests if isinstance(one, Request) for place in one.items] == list(range(len(rows)))
    for request in requests:
        assert isinstance(request, Request)
        assert request.url == "https://business-api.tiktok.com/open_api/v1.3/segment/mapping/"
        body = json.loads(request.body)
        assert [column for column in SCHEMA if column in body["id_schema"]] == body["id_schema"]
        for row in body["batch_data"]:
            assert len(row) == len(body["id_schema"]) and any(row)
            assert all(is_sha256(cell["id"]) for cell in row if cell)
