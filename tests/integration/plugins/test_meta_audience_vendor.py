"""The Meta plugin, through the plugin host and over HTTP, against a fake that enforces Meta's rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from headrace.connector import wire
from headrace.domain.times import now_us
from headrace.plugins import ConnectorInstance, PluginHost
from headrace_sdk import (
    DeleteBatch,
    Delivered,
    Member,
    MemberBatch,
    Outcomes,
    Rejected,
    Retry,
    Row,
    Subject,
    Warned,
)
from tests.support.fake_meta import Failure, FakeMeta
from tests.support.vendor_calls import send

AUDIENCE = "1234567890"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def meta() -> AsyncIterator[FakeMeta]:
    fake = FakeMeta(app_secret="app-secret-for-tests")
    await fake.start()
    yield fake
    assert fake.violations == []
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[PluginHost]:
    running = PluginHost(["meta-audience"])
    await running.start()
    assert running.failures() == ()
    yield running
    await running.close()


def settings(meta: FakeMeta, **more: Any) -> dict[str, Any]:
    known = {"audience_id": AUDIENCE, "access_token": meta.token, "app_secret": meta.app_secret, "base_url": meta.url}
    return {**known, **more}


async def rows_of(instance: ConnectorInstance, *fields: dict[str, Any]) -> list[Row]:
    found = await instance.rows([Member(profile_id=str(n), fields=item) for n, item in enumerate(fields)])
    assert all(member.rejected is None for member in found)
    return [row for member in found for row in member.rows]


async def deliver(
    built: wire.BuiltBatch, instance: ConnectorInstance, meta: FakeMeta, token: str = ""
) -> list[Outcomes]:
    credentials = {"access_token": token or meta.token}
    return [
        await instance.read(request, await send(request, instance.info.auth, credentials)) for request in built.requests
    ]


def batch(rows: Sequence[Row]) -> MemberBatch:
    return MemberBatch(rows=tuple(rows), now_us=now_us())


async def test_rows_go_onto_the_list_and_off_again(meta: FakeMeta, host: PluginHost) -> None:
    instance = await host.open("meta-audience", settings(meta))
    rows = await rows_of(
        instance,
        {"email": ["Ada@Example.com", "ada@work.example"], "phone": "+49 171 1234567", "first_name": "Ada"},
        {"phone": "+1 650 555 1212", "country": "US", "state": "California", "zip": "94301-1234"},
        {"user_id": "u-17", "madid": "AEBE52E7-03EE-455A-B3C4-E57283966239"},
    )
    assert len(rows) == 4
    outcomes = await deliver(await instance.add_members(batch(rows)), instance, meta)
    assert outcomes == [Outcomes(items=(Delivered(),) * 4)]
    assert len(meta.rows[AUDIENCE]) == 4
    assert all("@" not in value for row in meta.rows[AUDIENCE] for _, value in row)
    await deliver(await instance.remove_members(batch(rows[1:])), instance, meta)
    assert len(meta.rows[AUDIENCE]) == 1
    assert [method for method, _, _ in meta.requests] == ["POST", "DELETE"]


async def test_a_removal_sends_what_was_added_whatever_the_person_has_become(meta: FakeMeta, host: PluginHost) -> None:
    instance = await host.open("meta-audience", settings(meta))
    before = await rows_of(instance, {"email": "old@example.com", "first_name": "Ada"})
    await deliver(await instance.add_members(batch(before)), instance, meta)
    await rows_of(instance, {"email": "new@example.com"})
    await deliver(await instance.remove_members(batch(before)), instance, meta)
    assert meta.rows[AUDIENCE] == set()


async def test_batches_hold_at_most_ten_thousand_rows(meta: FakeMeta, host: PluginHost) -> None:
    instance = await host.open("meta-audience", settings(meta))
    rows = await rows_of(instance, *({"email": f"person{n}@example.com"} for n in range(10_050)))
    built = await instance.add_members(batch(rows))
    assert [len(request.items) for request in built.requests] == [10_000, 50]
    outcomes = await deliver(built, instance, meta)
    assert sum(len(outcome.items) for outcome in outcomes) == 10_050
    assert len(meta.rows[AUDIENCE]) == 10_050
    assert max(len(request.body) for request in built.requests) < instance.info.batch.max_bytes


async def test_invalid_rows_are_found_by_the_samples(meta: FakeMeta, host: PluginHost) -> None:
    instance = await host.open("meta-audience", settings(meta))
    rows = await rows_of(instance, *({"email": f"p{n}@example.com", "country": "de"} for n in range(5)))
    meta.bad_cells = {rows[1].data["EMAIL"], rows[3].data["EMAIL"]}
    built = await instance.add_members(batch(rows))
    meta.gives_samples = False
    (unsure,) = await deliver(built, instance, meta)
    assert [type(outcome) for outcome in unsure.items] == [Warned] * 5
    meta.gives_samples = True
    # The samples show whole rows, and so the country that all have in common: the e-mail addresses tell them apart.
    (outcomes,) = await deliver(built, instance, meta)
    assert [type(outcome) for outcome in outcomes.items] == [Delivered, Rejected, Delivered, Rejected, Delivered]
    (removed,) = await deliver(await instance.remove_members(batch(rows)), instance, meta)
    assert [type(outcome) for outcome in removed.items] == [Warned] * 5


async def test_all_rows_invalid_are_all_rejected(meta: FakeMeta, host: PluginHost) -> None:
    instance = await host.open("meta-audience", settings(meta))
    rows = await rows_of(instance, {"email": "p@example.com"}, {"email": "q@example.com"})
    meta.bad_cells = {row.data["EMAIL"] for row in rows}
    meta.gives_samples = False
    (outcomes,) = await deliver(await instance.add_members(batch(rows)), instance, meta)
    assert [type(outcome) for outcome in outcomes.items] == [Rejected] * 2


@pytest.mark.parametrize(
    ("failure", "field", "part"),
    [
        (Failure(400, 190, 463, "Error validating access token"), "unauthorized", "access token is not valid"),
        (Failure(400, 102), "unauthorized", "access token is not valid"),
        (Failure(401, html=True), "unauthorized", "access token is not valid"),
        (Failure(403, 200, 0, "Permissions error"), "unauthorized", "lacks a permission"),
        (Failure(403, 10), "unauthorized", "lacks a permission"),
        (Failure(403, html=True), "unauthorized", "lacks a permission"),
        (Failure(400, 100, 33, "Object with ID '1' does not exist"), "misconfigured", "gone, blocked or not shared"),
        (Failure(400, 100, 1713230, "Invalid parameter"), "misconfigured", "gone, blocked or not shared"),
        (Failure(400, 2635), "misconfigured", "newer API version"),
        (Failure(400, 2655), "misconfigured", "accept the terms"),
        (Failure(400, 100, 0, "Invalid appsecret_proof provided in the API argument"), "misconfigured", "app secret"),
    ],
)
async def test_answers_that_pause_the_destination(
    meta: FakeMeta, host: PluginHost, failure: Failure, field: str, part: str
) -> None:
    outcomes = await answer_to(meta, host, failure)
    assert part in getattr(outcomes, field)
    assert all(isinstance(outcome, Retry) for outcome in outcomes.items)
    assert meta.rows == {}


@pytest.mark.parametrize(
    ("failure", "wait_s"),
    [
        (Failure(400, 17), None),
        (Failure(400, 4), None),
        (Failure(400, 32), None),
        (Failure(400, 613), None),
        (Failure(429, html=True, headers={"Retry-After": "7"}), 7.0),
        (
            Failure(400, 80003, headers={"X-Business-Use-Case-Usage": '{"1":[{"estimated_time_to_regain_access":3}]}'}),
            180.0,
        ),
        (Failure(400, 17, headers={"X-Ad-Account-Usage": '{"reset_time_duration":90}'}), 90.0),
    ],
)
async def test_throttling_slows_the_destination(
    meta: FakeMeta, host: PluginHost, failure: Failure, wait_s: float | None
) -> None:
    outcomes = await answer_to(meta, host, failure)
    assert outcomes.throttle_s == (wait_s or 0.0)
    assert [outcome.after_s for outcome in outcomes.items if isinstance(outcome, Retry)] == [wait_s] * 2


@pytest.mark.parametrize(
    "failure",
    [
        Failure(500, 1),
        Failure(503, 2),
        Failure(400, 368),
        Failure(400, 100, transient=True),
        Failure(502, html=True),
        Failure(404, html=True),
        Failure(200, html=True),
    ],
)
async def test_what_passes_is_tried_again(meta: FakeMeta, host: PluginHost, failure: Failure) -> None:
    outcomes = await answer_to(meta, host, failure)
    assert [type(outcome) for outcome in outcomes.items] == [Retry] * 2
    assert (outcomes.unauthorized, outcomes.misconfigured, outcomes.throttle_s) == ("", "", None)


async def test_other_errors_are_final_and_quote_nothing_personal(meta: FakeMeta, host: PluginHost) -> None:
    failure = Failure(400, 100, 0, "Invalid parameter: ada@example.com, 4917112345678, " + "ab" * 32)
    outcomes = await answer_to(meta, host, failure)
    for outcome in outcomes.items:
        assert outcome == Rejected(reason="Meta answered with error 100 (Invalid parameter: ..., ..., ...)")


async def answer_to(meta: FakeMeta, host: PluginHost, failure: Failure) -> Outcomes:
    instance = await host.open("meta-audience", settings(meta))
    rows = await rows_of(instance, {"email": "a@example.com"}, {"email": "b@example.com"})
    meta.failures.append(failure)
    (outcomes,) = await deliver(await instance.add_members(batch(rows)), instance, meta)
    return outcomes


async def test_a_wrong_token_and_an_old_version_are_said(meta: FakeMeta, host: PluginHost) -> None:
    rows = [Row.of({"EMAIL": "0" * 64})]
    wrong = await host.open("meta-audience", settings(meta, access_token="wrong-token"))
    (outcomes,) = await deliver(await wrong.add_members(batch(rows)), wrong, meta, "wrong-token")
    assert "access token" in outcomes.unauthorized and "wrong-token" not in outcomes.unauthorized
    old = await host.open("meta-audience", settings(meta, api_version="v24.0"))
    (outcomes,) = await deliver(await old.add_members(batch(rows)), old, meta)
    assert "newer API version" in outcomes.misconfigured


async def test_limited_data_use_marks_each_row(meta: FakeMeta, host: PluginHost) -> None:
    instance = await host.open("meta-audience", settings(meta, limited_data_use=True))
    rows = await rows_of(instance, {"email": "a@example.com"})
    await deliver(await instance.add_members(batch(rows)), instance, meta)
    payload = meta.requests[0][2]["payload"]
    assert payload["schema"][-1] == "DATA_PROCESSING_OPTIONS" and payload["data"][0][-1] == ["LDU"]


async def test_people_to_be_forgotten_are_taken_off_by_each_identifier(meta: FakeMeta, host: PluginHost) -> None:
    instance = await host.open("meta-audience", settings(meta))
    rows = await rows_of(instance, {"email": "ada@example.com", "phone": "+49 171 1234567"}, {"email": "b@example.com"})
    meta.known = {rows[0].data["PHONE"]: "Ada", rows[1].data["EMAIL"]: "Bob"}
    await deliver(await instance.add_members(batch(rows)), instance, meta)
    assert meta.people[AUDIENCE] == {"Ada", "Bob"}
    subjects = (
        Subject(profile_id="p", identifiers={"email": ["ada@example.com"], "phone": ["+491711234567"]}),
        Subject(profile_id="q", identifiers={"anonymous_id": ["x"]}),
    )
    built = await instance.delete(DeleteBatch(subjects=subjects, now_us=now_us()))
    assert [skip.item for skip in built.skipped] == [1]
    (outcomes,) = await deliver(built, instance, meta)
    assert outcomes.items == (Delivered(),)
    assert meta.people[AUDIENCE] == {"Bob"}


async def test_many_instances_share_the_process(meta: FakeMeta, host: PluginHost) -> None:
    meta.audiences |= {str(n) for n in range(20)}
    instances = await asyncio.gather(
        *(host.open("meta-audience", settings(meta, audience_id=str(n))) for n in range(20))
    )
    rows = await rows_of(instances[0], {"email": "a@example.com"})
    built = await asyncio.gather(*(instance.add_members(batch(rows)) for instance in instances))
    assert [one.requests[0].url.split("/")[-2] for one in built] == [str(n) for n in range(20)]
