"""Google Ads audiences through plugin process and outlet, with OAuth, to a vendor that keeps the documented rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from headrace_destination_google_ads_audience.answers import LOOK_EVERY_S
from headrace_sync.erasure import eraser
from headrace_sync.erasure.eraser import Whom
from headrace_sync.jobs.follower import ask_round
from headrace_sync.jobs.store import part_of
from headrace_sync.outlets import jobs
from headrace_sync.outlets.batch import ADD_MEMBERS, DELETE_PEOPLE, REMOVE_MEMBERS
from headrace_sync.outlets.verdicts import Kind, Verdict

from headrace.connector import wire
from headrace.domain.times import SECOND_US, now_us
from headrace.plugins.authentication import authorised
from headrace.storage.mongo.client import Document
from headrace_sdk import (
    Profile,
    Request,
    Row,
    Subject,
)
from tests.support.connector_outlets import Station, Way
from tests.support.vendor_calls import send
from tests.support.vendors.google_data_manager import FakeDataManager, error

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTOR = "google-ads-audience"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between two looks at a request, which are half a minute else."""
    monkeypatch.setattr(jobs, "LONGEST_PAUSE_S", 0.01)


@pytest_asyncio.fixture(loop_scope="module")
async def google() -> AsyncIterator[FakeDataManager]:
    fake = FakeDataManager()
    await fake.start()
    yield fake
    await fake.stop()


def settings(google: FakeDataManager, **more: Any) -> dict[str, Any]:
    known = {
        "customer_id": google.account, "user_list_id": "777", "client_id": "client", "client_secret": "hush",
        "refresh_token": google.refresh_token, "login_customer_id": google.manager, "base_url": google.url,
        "token_url": f"{google.url}/token",
    }  # fmt: skip
    return {**known, **more}


@pytest_asyncio.fixture(loop_scope="module")
async def there(google: FakeDataManager, shared: Station) -> AsyncIterator[Way]:
    async with shared.way(settings(google)) as found:
        yield found


def person(number: int, **consents: str) -> Profile:
    return Profile(
        id=f"p{number}",
        identifiers={"email": [f"Person.{number}@Gmail.com"], "phone": ["+49 171 1234567"], "user_id": [f"u{number}"]},
        traits={"first_name": "Ada", "last_name": "O'Byron", "zip": "SW1Y 4JH", "country": "gb"},
        consents=consents,
    )


async def rows(there: Way, *people: Profile) -> list[Row]:
    found = await there.outlet.rows(there.members(people))
    return [row for one in found if isinstance(one, wire.MemberRows) for row in one.rows]


async def test_people_go_onto_the_list_and_off_again(google: FakeDataManager, there: Way) -> None:
    made = await rows(there, person(1, ad_user_data="granted"), person(2), person(3, ad_personalization="denied"))
    assert len(made) == 2
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED] * 2
    assert len(google.members["777"]) == 2 and google.consents == [{"adUserData": "CONSENT_GRANTED"}, None]
    assert all("@" not in member and "Byron" not in member for member in google.members["777"])
    await there.outlet.send(REMOVE_MEMBERS, made[:1])
    assert len(google.members["777"]) == 1


async def test_lists_of_user_ids_and_of_devices(google: FakeDataManager, shared: Station) -> None:
    async with shared.way(settings(google, user_list_id="778", key_type="user_id")) as by_id:
        await by_id.outlet.send(ADD_MEMBERS, await rows(by_id, person(1), person(2)))
    assert google.members["778"] == {'{"userIdData": {"userId": "u1"}}', '{"userIdData": {"userId": "u2"}}'}
    async with shared.way(settings(google, user_list_id="779", key_type="mobile")) as by_device:
        owner = Profile(id="p", identifiers={"idfa": ["AEBE52E7-03EE-455A-B3C4-E57283966239"]})
        await by_device.outlet.send(ADD_MEMBERS, await rows(by_device, owner))
        assert len(google.members["779"]) == 1
        await by_device.outlet.send(DELETE_PEOPLE, [Subject(profile_id="p", identifiers=owner.identifiers)])
    assert google.members["779"] == set()


async def test_a_deletion_is_not_waited_for(google: FakeDataManager, there: Way) -> None:
    """Google works on a request for half an hour and longer; who deletes people has not so much time."""
    google.looks = 1_000_000
    whom = Whom("w", "d", ["p1"], {"email": ["person.1@gmail.com"]})
    try:
        async with asyncio.timeout(20):
            found = await eraser.ask_to_forget(there.outlet, whom, was_sent=True)
    finally:
        google.looks = 0
    assert found == (eraser.Result.REQUESTED, "the vendor works on it") and len(google.requests) == 1


async def test_ten_thousand_members_a_request(google: FakeDataManager, there: Way) -> None:
    made = [Row.of({"userData": {"userIdentifiers": [{"emailAddress": f"{n:064x}"}]}}) for n in range(10_000)]
    await there.outlet.send(ADD_MEMBERS, made)
    assert [len(body["audienceMembers"]) for body in google.requests] == [10_000]


async def test_a_bad_member_is_found_and_the_others_go_again(google: FakeDataManager, there: Way) -> None:
    good, bad = {"emailAddress": "0" * 64}, {"emailAddress": "not a digest"}
    made = [Row.of({"userData": {"userIdentifiers": [one, {"phoneNumber": f"{n:064x}"}]}}) for n, one in
            enumerate([good, bad, good])]  # fmt: skip
    verdicts = await there.outlet.send(ADD_MEMBERS, made)
    assert [verdict.kind for verdict in verdicts] == [Kind.DELIVERED, Kind.REJECTED, Kind.DELIVERED]
    assert "INVALID_SHA256_FORMAT" in verdicts[1].reason
    assert len(google.members["777"]) == 2 and len(google.requests) == 1


async def test_a_request_is_followed_to_its_end(google: FakeDataManager, there: Way) -> None:
    made = await rows(there, person(1), person(2))
    no_consent = {"errorCounts": [{"reason": "PROCESSING_ERROR_REASON_NO_CONSENT", "recordCount": "1"}]}
    for state, kind in (("PARTIAL_SUCCESS", Kind.WARNED), ("FAILED", Kind.REJECTED)):
        google.statuses += [{"requestStatus": "PROCESSING"}] * 3
        google.statuses.append({"requestStatus": state, "errorInfo": no_consent})
        verdicts = await there.outlet.send(ADD_MEMBERS, made)
        assert [verdict.kind for verdict in verdicts] == [kind] * 2
        assert "NO_CONSENT for 1" in verdicts[0].reason and not google.statuses


async def test_a_request_that_is_long_under_way_is_looked_at_every_half_hour(
    google: FakeDataManager, there: Way
) -> None:
    google.looks = 3
    parts: list[Document] = []

    async def taken(job: str, places: Sequence[int], after_s: float) -> None:
        assert after_s == LOOK_EVERY_S
        parts.append(part_of(job, [{"id": "m1", "r": "row-1", "g": 1}], at=0, wait_s=after_s))

    await there.outlet.send(ADD_MEMBERS, await rows(there, person(1)), taken=taken)
    document = {"c": now_us(), "p": parts}
    for _ in range(3):
        found = await ask_round(there.outlet, document, now_us())
        ((left,),) = [found.left]
        assert found.ended == [] and left["a"] - now_us() > (LOOK_EVERY_S - 60) * SECOND_US
        document["p"] = [{**left, "a": 0}]
    google.statuses.append({"requestStatus": "PARTIAL_SUCCESS"})
    found = await ask_round(there.outlet, document, now_us())
    assert [verdict.kind for _, verdict in found.ended] == [Kind.WARNED] and found.left == []


async def test_a_request_whose_end_is_not_seen_counts_as_taken(google: FakeDataManager, shared: Station) -> None:
    async with shared.way(settings(google, patience_hours=0)) as there:
        google.statuses.append({"requestStatus": "PROCESSING"})
        (verdict,) = await there.outlet.send(ADD_MEMBERS, await rows(there, person(1)))
    assert verdict.kind is Kind.WARNED and "its end was not seen" in verdict.reason


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"user_list_id": "1"}, "INVALID_USER_LIST_ID"),
        ({"user_list_id": "778"}, "INVALID_USER_LIST_TYPE"),
        ({"terms_accepted": False}, "accept the Customer Match terms"),
        ({"login_customer_id": "1111111111"}, "may not change the account's lists"),
        ({"customer_id": "1111111111"}, "PERMISSION_DENIED"),
        ({"refresh_token": "revoked"}, "invalid_grant"),
    ],
)
async def test_settings_that_cannot_work_stop_the_destination(
    google: FakeDataManager, shared: Station, wrong: dict[str, Any], reason: str
) -> None:
    async with shared.way(settings(google, **wrong)) as there:
        (verdict,) = await there.outlet.send(ADD_MEMBERS, await rows(there, person(1)))
        assert verdict.kind is Kind.UNTRIED and reason in there.halted[0]
        assert "revoked" not in there.halted[0]
    assert google.requests == []


async def test_an_access_token_that_ended_is_renewed(google: FakeDataManager, there: Way) -> None:
    made = await rows(there, person(1), person(2))
    await there.outlet.send(ADD_MEMBERS, made[:1])
    google.tokens = {"another"}
    await there.outlet.send(ADD_MEMBERS, made[1:])
    assert len(google.members["777"]) == 2


async def test_throttling_and_failures(google: FakeDataManager, there: Way) -> None:
    made = await rows(there, person(1))
    google.failures.append(error(503, "UNAVAILABLE", []))
    (failed,) = await there.outlet.send(ADD_MEMBERS, made)
    assert failed == Verdict(Kind.RETRY, "Google answered 503 (UNAVAILABLE)", 503)
    google.failures.append(error(429, "RESOURCE_EXHAUSTED", [], reason="RESOURCE_EXHAUSTED", Retry_After="3"))
    (slow,) = await there.outlet.send(ADD_MEMBERS, made)
    assert (slow.kind, slow.after_s) == (Kind.RETRY, 3.0)


async def test_lists_of_the_account_are_shown_and_made(google: FakeDataManager, there: Way) -> None:
    instance = await there.host.open(CONNECTOR, settings(google))

    async def ask(request: Request) -> wire.FoundLists:
        return await instance.read_lists(request, await send(signed(there, google, request)))

    first = await ask(await instance.lists())
    second = await ask(await instance.lists(first.next_page))
    assert [one.id for one in (*first.lists, *second.lists)] == ["777"] and second.next_page == ""
    made = await ask(await instance.create_list("Buyers"))
    assert google.lists[made.lists[0].id] == "CONTACT_ID"


async def test_the_check_changes_nothing(google: FakeDataManager, there: Way) -> None:
    for more, said in (({}, ""), ({"user_list_id": "1"}, "the list is gone, of another kind, or not to be changed")):
        instance = await there.host.open(CONNECTOR, settings(google, **more))
        (check,) = await instance.check()
        found = await instance.read_check(check, await send(signed(there, google, check.request)))
        assert found.endswith(said) and bool(found) == bool(said)
    assert google.requests == []


def signed(there: Way, google: FakeDataManager, request: Request) -> Request:
    google.tokens.add("by-hand")
    auth = there.host.connectors()[CONNECTOR].auth
    return authorised(request, auth, settings(google), now_us=now_us(), token="by-hand")
