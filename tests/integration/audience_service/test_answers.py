"""Why somebody is in, how audiences overlap, how they went: through the service, on real stores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import grpc
import pytest
from headrace_audience.answers import overlap, preview
from headrace_audience.settings import Settings
from headrace_audience.store import MEMBERSHIPS

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import Audience
from headrace.domain.ids import partition_of
from headrace.domain.times import DAY_US, now_us
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from headrace.storage.streams.client import Redis
from tests.support.audience import QUICK, AudienceClient, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, QUICK["partitions"])


async def start(client: AudienceClient, **definitions: str) -> None:
    for audience_id, definition in definitions.items():
        await client.create(audience_id, definition)
        await client.activate(audience_id)
        await client.active(audience_id)


async def test_why_somebody_is_in_and_somebody_else_is_not(client: AudienceClient, identity: FakeIdentity) -> None:
    at = now_us()
    await identity.resolve(
        event("p1", "Viewed", at_us=at - DAY_US, message_id="v1"),
        event("p1", "Viewed", at_us=at - 2 * DAY_US, message_id="v2"),
        event("p2", "Viewed", at_us=at, message_id="v3"),
        event("p2", traits={"plan": "gold"}, message_id="t1"),
        event("p3", "Purchased", at_us=at, properties={"value": 12.5}, message_id="b1"),
    )
    await start(
        client,
        hot="performed Viewed in last 7d count >= 2 and not performed Purchased in last 7d",
        gold='in audience hot or trait plan = "gold" or performed Purchased sum(value) > 10',
    )
    await client.has_members("hot", ["p1"])
    await client.has_members("gold", ["p1", "p2", "p3"])

    async def explain(audience_id: str, profile_id: str, at_us: int = 0) -> pb.ExplainMembershipResponse:
        name = client.name(audience_id)
        request = pb.ExplainMembershipRequest(name=name, profile_id=profile_id, at_us=at_us)
        found: pb.ExplainMembershipResponse = await client.stub.ExplainMembership(request)
        return found

    found = await explain("hot", "p1")
    assert (found.member, found.stored_member, found.profile_id) == (True, True, "p1")
    assert (found.since_us, found.changes_at_us) == (at - DAY_US, at + 5 * DAY_US)
    viewed, bought = found.condition.parts
    assert viewed.text == "performed Viewed in last 7d count >= 2"
    assert (viewed.holds, viewed.counted, [e.message_id for e in viewed.events]) == (True, 2, ["v1", "v2"])
    assert (bought.text, bought.holds, bought.parts[0].counted) == ("not performed Purchased in last 7d", True, 0)
    assert viewed.sentence.startswith("2 Viewed in the last 7 days (at least 2 wanted); no longer so from ")
    assert bought.parts[0].sentence == "no Purchased in the last 7 days."
    assert found.summary.startswith("In: 2 Viewed in the last 7 days") and not found.fewer_possible
    (said,) = found.missing
    assert said.startswith("must no longer hold: performed Viewed in last 7d count >= 2 (found: 2 Viewed in the last")

    found = await explain("hot", "p2")
    assert (found.member, found.stored_member, found.condition.parts[0].counted) == (False, False, 1)
    found = await explain("hot", "p1", at - DAY_US - 1)  # before the second view
    assert (found.member, found.stored_member) == (False, True)
    assert found.changes_at_us == 0, "the second view came later: time alone brings nobody in"
    inner, trait, _ = (await explain("gold", "p2")).condition.parts
    assert (inner.text, inner.holds) == ("in audience hot", False)
    assert (trait.holds, trait.set_by.message_id, json.loads(trait.set_by.value)) == (True, "t1", "gold")
    *_, spent = (await explain("gold", "p3")).condition.parts
    assert [(e.message_id, json.loads(e.value)) for e in spent.events] == [("b1", 12.5)]

    for audience_id, profile_id, reason in (("ghost", "p1", errors.NOT_FOUND), ("hot", "nobody", errors.NOT_FOUND)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await explain(audience_id, profile_id)
        assert errors.reason_of(refused.value) == reason


@pytest.mark.parametrize("at_us", [-1, 2**62, 2**63 - 1])
async def test_moments_that_no_calendar_holds_are_not_explained(
    client: AudienceClient, identity: FakeIdentity, at_us: int
) -> None:
    await identity.resolve(event("p1", "Viewed"))
    await client.create("viewers", "performed Viewed in last 7d")
    request = pb.ExplainMembershipRequest(name=client.name("viewers"), profile_id="p1", at_us=at_us)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.stub.ExplainMembership(request, timeout=20)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "at_us" in (refused.value.details() or "")


async def test_somebody_of_very_many_events_is_explained_too(client: AudienceClient, identity: FakeIdentity) -> None:
    """Not in the square of the events."""
    at = now_us()
    await identity.store([event("p1", "Viewed", at_us=at - n * 60_000_000) for n in range(5_000)])
    await client.create("viewers", "performed Viewed in last 7d count >= 4990")
    request = pb.ExplainMembershipRequest(name=client.name("viewers"), profile_id="p1", at_us=at)
    found = await client.stub.ExplainMembership(request, timeout=20)
    assert (found.member, found.stored_member, found.since_us) == (True, False, 0)
    assert (found.condition.counted, len(found.condition.events)) == (5_000, 100)
    assert found.changes_at_us == at - 4_989 * 60_000_000 + 7 * DAY_US


async def test_a_preview_warns_of_what_nobody_has(client: AudienceClient, identity: FakeIdentity) -> None:
    await identity.resolve(
        event("p1", "Purchased", properties={"value": 5, "currency": "EUR"}), event("p1", traits={"plan": "gold"})
    )

    async def warnings(definition: str) -> list[str]:
        request = pb.PreviewAudienceRequest(parent=client.parent, definition=definition)
        return list((await client.stub.PreviewAudience(request)).warnings)

    assert await warnings('performed Purchased where (currency = "EUR") sum(value) > 1 and trait plan = "gold"') == []
    assert await warnings('performed Purchassed where (x = 1) or trait Plan = "gold"') == [
        "No event is named 'Purchassed'; did you mean 'Purchased'?",
        "Nobody has a trait 'Plan'; did you mean 'plan'?",
    ]
    assert await warnings("performed Purchased where (coupon not exists) avg(vlaue) > 1") == [
        "'Purchased' has no property 'vlaue'; did you mean 'value'?"
    ]
    assert await warnings("sequence (Purchased then not Wished within 1d same (quux))") == [
        "No event is named 'Wished'.",
    ]

    await identity.resolve(
        event("p2", "Viewed", identifiers=[("email", "a@b.example")], context={"consent": {"ads": True}})
    )
    assert await warnings("identifier email exists and consent ads = granted") == []
    assert await warnings("identifier e-mail exists or not identifier hubspot exists") == [
        "Nobody has an identifier of namespace 'e-mail'; did you mean 'email'?",
        "Nobody has an identifier of namespace 'hubspot'.",
    ]
    assert await warnings("consent add = granted or consent analytics = denied") == [
        "Nobody has said anything of the purpose 'add'; did you mean 'ads'?",
        "Nobody has said anything of the purpose 'analytics'.",
    ]
    assert await warnings('first touch device in (mobile, phone) or last touch platform = "IOS"') == [
        "device is never 'phone', but one of mobile, tablet, desktop, tv, bot.",
        "platform is never 'IOS', but one of ios, android, web; did you mean 'ios'?",
    ]
    assert await warnings('first touch device = "Tablet" ignoring case or first touch browser = "Chrome"') == []
    assert await warnings('last touch country in ("DE", "Germany", "at", "Atlantis")') == [
        "'Germany' is no country in two letters (ISO 3166), as most events say it; did you mean 'DE'?",
        "'at' is no country in two letters (ISO 3166), as most events say it; did you mean 'AT'?",
        "'Atlantis' is no country in two letters (ISO 3166), as most events say it.",
    ]
    assert await warnings("performed Purchased count >= 0") == [
        "where.count: every number is right here (gte): the condition holds for everybody."
    ]


async def test_saving_warns_of_what_nobody_has(
    client: AudienceClient, identity: FakeIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list((await client.create("early", "performed Purchassed")).warnings) == [], "nobody has done anything yet"
    await identity.resolve(event("p1", "Purchased", properties={"value": 5}))
    said = ["No event is named 'Purchassed'; did you mean 'Purchased'?"]
    assert list((await client.create("typo", "performed Purchassed")).warnings) == said
    assert list((await client.get("typo")).warnings) == []
    property_said = ["'Purchased' has no property 'vlaue'; did you mean 'value'?"]
    assert list((await client.update("typo", "performed Purchased sum(vlaue) > 1")).warnings) == property_said
    planned = pb.UpdateAudienceRequest(
        audience=Audience(name=client.name("typo"), definition="performed Purchassed"), validate_only=True
    )
    assert list((await client.stub.UpdateAudience(planned)).audience.warnings) == said
    assert list((await client.update("typo", "performed Purchased count >= 0")).warnings) == [
        "where.count: every number is right here (gte): the condition holds for everybody."
    ]
    rename = pb.UpdateAudienceRequest(audience=Audience(name=client.name("early"), display_name="Other"))
    assert list((await client.stub.UpdateAudience(rename)).audience.warnings) == []

    # Saving does not wait for it.
    monkeypatch.setattr(preview, "SAVED_S", 0)
    assert list((await client.create("late", "performed Purchassed")).warnings) == [preview.NOT_LOOKED]


async def test_suggestions_can_be_made_as_they_are(client: AudienceClient) -> None:
    request = pb.ListSuggestedAudiencesRequest(parent=client.parent)
    suggestions = (await client.stub.ListSuggestedAudiences(request)).suggestions
    assert {"viewed-not-purchased", "abandoned-cart", "lapsed-buyers", "high-value", "new-visitors"} <= {
        one.audience_id for one in suggestions
    }
    for one in suggestions:
        made = await client.create(one.audience_id, one.definition, display_name=one.display_name)
        assert made.definition == one.definition
        assert (await client.update(one.audience_id, one.definition_text)).definition == one.definition


async def test_overlap_and_history(client: AudienceClient, identity: FakeIdentity) -> None:
    bought = [event(f"p{i}", "A") for i in range(6)] + [event(f"p{i}", "B") for i in range(4, 9)]
    await identity.resolve(*bought, event("p4", "C"))
    await start(client, a="performed A", b="performed B", c="performed C in last 1s")
    await client.has_members("a", [f"p{i}" for i in range(6)])
    await client.has_members("b", [f"p{i}" for i in range(4, 9)])
    compared = await client.stub.CompareAudiences(
        pb.CompareAudiencesRequest(parent=client.parent, audience_ids=["a", "b"])
    )
    assert [(list(r.audience_ids), r.size) for r in compared.regions] == [(["a"], 4), (["b"], 3), (["a", "b"], 2)]
    assert (compared.union_size, compared.intersection_size) == (9, 2)
    await client.has_members("c", [])
    request = pb.GetAudienceHistoryRequest(name=client.name("c"), days=3, time_zone="Asia/Kolkata")
    days = (await client.stub.GetAudienceHistory(request)).days
    assert [(d.entered, d.left, d.size) for d in days[:2]] == [(0, 0, 0), (0, 0, 0)]
    assert days[2].entered == days[2].left and days[2].size == 0
    (*_, today) = (await client.stub.GetAudienceHistory(pb.GetAudienceHistoryRequest(name=client.name("a")))).days
    assert (today.entered, today.left, today.size) == (6, 0, 6)

    wrong = [
        client.stub.CompareAudiences(pb.CompareAudiencesRequest(parent=client.parent, audience_ids=["a", "a"])),
        client.stub.CompareAudiences(pb.CompareAudiencesRequest(parent=client.parent, audience_ids=["a"])),
        client.stub.GetAudienceHistory(pb.GetAudienceHistoryRequest(name=client.name("a"), days=367)),
        client.stub.GetAudienceHistory(pb.GetAudienceHistoryRequest(name=client.name("a"), time_zone="Pune")),
    ]
    for call in wrong:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert errors.reason_of(refused.value) == errors.INVALID_ARGUMENT


async def test_overlap_is_exact_whatever_the_pages(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    r = Random(4)
    people = [f"p{number}" for number in range(60)] + ["ä", "z", "🜁", "\uffff"]
    audiences = {name: set(r.sample(people, size)) for name, size in (("a", 40), ("b", 25), ("c", 1), ("d", 0))}
    rows = [
        {
            "_id": f"{name}-{person}",
            "w": "acme",
            "a": name,
            "q": partition_of(person, 4),
            "p": person,
            "in": person in members,
        }
        for name, members in audiences.items()
        for person in people
    ]
    await db[MEMBERSHIPS].insert_many([*rows, {"_id": "other", "w": "other", "a": "a", "p": "p1", "in": True}])
    expected = Counter(tuple(n for n, members in audiences.items() if p in members) for p in people)
    del expected[()]
    for page in (1, 2, 7, 1_000):
        monkeypatch.setattr(overlap, "PAGE", page)
        regions = await overlap.overlap(db, "acme", list(audiences), 4)
        assert dict(regions) == expected
        assert [size for _, size in regions] == sorted(expected.values(), reverse=True)
