"""Members of Google's lists: stable, hashed, within the limits, and independent of the order of values."""

from __future__ import annotations

import json
import re
from typing import Any

from headrace_destination_google_ads_audience.destination import GoogleAdsAudience
from headrace_destination_google_ads_audience.people import normalise, rows_of
from headrace_destination_google_ads_audience.settings import GoogleAdsAudienceSettings, KeyType
from hypothesis import given
from hypothesis import strategies as st

from headrace_sdk import DeleteBatch, MemberBatch, RecordRejected, Request, Row, Skip, Subject

EMAILS = st.builds("{}@{}.example".format, st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.sampled_from(["x", "y"]))
PHONES = st.integers(10**9, 10**12).map("+{}".format)
NAMES = {
    "email": st.lists(EMAILS | st.text(max_size=5), max_size=14),
    "phone": st.lists(PHONES | st.text(max_size=5), max_size=4),
    "user_id": st.lists(st.text(max_size=5), max_size=4),
}
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        **NAMES,
        "mobile_id": st.lists(st.uuids().map(str) | st.text(max_size=4), max_size=12),
        "first_name": st.text(max_size=8),
        "last_name": st.text(max_size=8),
        "zip": st.text(max_size=8),
        "country": st.sampled_from(["de", "US", "??"]),
        "ad_user_data": st.sampled_from(["granted", "denied", "?"]),
    },
)
SUBJECTS = st.builds(
    Subject,
    profile_id=st.just("p"),
    identifiers=st.fixed_dictionaries({}, optional={**NAMES, "idfa": NAMES["user_id"]}),
)
KINDS = st.sampled_from(list(KeyType))


def rows(fields: dict[str, Any], kind: KeyType) -> list[Row] | None:
    try:
        return rows_of(fields, kind)
    except RecordRejected:
        return None


@given(FIELDS, KINDS, st.randoms(use_true_random=False))
def test_rows(fields: dict[str, Any], kind: KeyType, random: Any) -> None:
    shuffled = {
        name: random.sample(value, len(value)) if isinstance(value, list) else value for name, value in fields.items()
    }
    found = rows(fields, kind)
    assert found == rows(shuffled, kind)
    for row in found or ():
        identifiers = row.data.get("userData", {}).get("userIdentifiers", [])
        assert len(identifiers) <= 10 and len(row.data.get("mobileData", {}).get("mobileIds", [])) <= 10
        for one in identifiers:
            hashed = [one.get("emailAddress"), one.get("phoneNumber")]
            hashed += [one.get("address", {}).get(name) for name in ("givenName", "familyName")]
            assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashed if digest is not None)
    assert len({row.key for row in found or ()}) == len(found or ())


@given(st.lists(SUBJECTS, max_size=5), KINDS)
def test_everybody_to_be_forgotten_is_accounted_for(subjects: list[Subject], kind: KeyType) -> None:
    settings = GoogleAdsAudienceSettings.model_validate(
        {
            "customer_id": "1234567890", "user_list_id": "1", "client_id": "c", "client_secret": "s",
            "refresh_token": "r", "key_type": kind,
        }
    )  # fmt: skip
    connector = GoogleAdsAudience(settings)
    built = list(connector.delete(DeleteBatch(subjects=tuple(subjects), now_us=0)))
    places = [place for one in built if isinstance(one, Request) for place in one.items]
    assert sorted(places + [one.item for one in built if isinstance(one, Skip)]) == list(range(len(subjects)))
    for request in built:
        if isinstance(request, Request):
            assert request.url == "https://datamanager.googleapis.com/v1/audienceMembers:remove"


@given(st.lists(FIELDS, max_size=5), KINDS)
def test_a_row_is_the_same_member_in_every_batch(people: list[dict[str, Any]], kind: KeyType) -> None:
    found = [row for fields in people for row in rows(fields, kind) or ()]
    settings = {"customer_id": "1234567890", "user_list_id": "1", "client_id": "c", "client_secret": "s"}
    connector = GoogleAdsAudience(GoogleAdsAudienceSettings.model_validate({**settings, "refresh_token": "r"}))

    def members(batch: list[Row]) -> list[Any]:
        built = connector.add_members(MemberBatch(rows=tuple(batch), now_us=0))
        requests = [one for one in built if isinstance(one, Request)]
        return [member for request in requests for member in json.loads(request.body)["audienceMembers"]]

    assert members(found) == [member for row in found for member in members([row])]


@given(st.sampled_from(["email", "phone", "first_name", "city", "zip", "country"]), st.text(max_size=20))
def test_normalising_twice_changes_nothing(field: str, value: str) -> None:
    try:
        once = normalise(field, value)
    except RecordRejected:
        return
    assert normalise(field, once.normalised) == once
