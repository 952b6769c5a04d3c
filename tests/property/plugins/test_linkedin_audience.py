"""Rows of people at LinkedIn: hashed, independent of the order of values, each accounted for once."""

from __future__ import annotations

import json
from typing import Any

from headrace_destination_linkedin_audience.destination import LinkedInAudience
from headrace_destination_linkedin_audience.people import FIELDS, rows_of
from headrace_destination_linkedin_audience.settings import LinkedInAudienceSettings
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
        many = ("email", "gaid")
        shuffled = {
            name: random.sample(values, len(values)) if name in many else values for name, values in fields.items()
        }
        try:
            found = rows_of(fields)
        except RecordRejected:
            continue
        assert found == rows_of(shuffled)
        rows += found
    settings = LinkedInAudienceSettings.model_validate({"access_token": "t", "account_id": "1", "segment_id": "2"})
    there, batch = LinkedInAudience(settings), MemberBatch(rows=tuple(rows), now_us=0)
    requests = list((there.add_members if adding else there.remove_members)(batch))
    assert [place for one in requests if isinstance(one, Request) for place in one.items] == list(range(len(rows)))
    for request in requests:
        assert isinstance(request, Request)
        assert request.url == "https://api.linkedin.com/rest/dmpSegments/2/users"
        for element in json.loads(request.body)["elements"]:
            assert element["action"] == ("ADD" if adding else "REMOVE")
            ids = element.get("userIds", [])
            assert ids or {"firstName", "lastName"} <= set(element)
            assert all(is_sha256(one["idValue"]) for one in ids if one["idType"] == "SHA256_EMAIL")
