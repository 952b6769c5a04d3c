"""How many members of an audience each destination could match, with the real Meta plugin and nothing sent."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from headrace.api.sync.v1 import plan_pb2 as plan
from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.rpc import errors
from tests.support import sync as support
from tests.support.fake_meta import FakeMeta
from tests.support.sync import Hooks, Others

PLUGINS = "meta-audience,webhook"


async def destination(api: support.Api, meta: FakeMeta) -> str:
    made: str = await api.destination(
        "meta", "", connector="meta-audience", audience_id="1234567890", access_token=meta.token, base_url=meta.url
    )
    return made


async def readiness(api: support.Api, name: str = support.AUDIENCE) -> pb.GetAudienceReadinessResponse:
    found: pb.GetAudienceReadinessResponse = await api.syncs.GetAudienceReadiness(
        pb.GetAudienceReadinessRequest(name=name), timeout=60
    )
    return found


async def test_members_are_counted_as_a_sync_would_send_them(serve: Any, meta: FakeMeta, others: Others) -> None:
    for n in range(5):
        others.people.put(f"p{n}", email=f"p{n}@example.com", **({"phone": f"+4915112345{n}"} if n < 2 else {}))
    others.people.put("p5", plan="no way to reach this one")
    for n in range(7):  # the profile of the last one is gone
        others.buyers.change(f"p{n}", True)
    async with serve() as api:
        name = await destination(api, meta)
        found = await readiness(api)
        (one,) = found.destinations
        assert (found.size, found.sampled, one.destination, one.sync, one.problem) == (7, 7, name, "", "")
        assert (one.reachable, one.reachable_in_all) == (5, 5)
        assert (one.fields["email"], one.fields["phone"]) == (5, 2)
        assert one.left_out["no_profile"] == 1 and sum(one.left_out.values()) == 2
        assert one.level == pb.READINESS_LEVEL_TOO_SMALL
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await readiness(api, f"{support.PARENT}/audiences/ghost")
        assert errors.reason_of(refused.value) == errors.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await readiness(api, support.ACCOUNTS)
        assert errors.reason_of(refused.value) == errors.INVALID_ARGUMENT
    assert not meta.requests


async def test_a_large_audience_is_sampled(serve: Any, meta: FakeMeta, others: Others) -> None:
    for n in range(4_000):
        others.people.put(f"p{n}", **({"email": f"p{n}@example.com"} if n % 4 else {"plan": "none"}))
        others.buyers.change(f"p{n}", True)
    async with serve() as api:
        await destination(api, meta)
        found = await readiness(api)
        (one,) = found.destinations
        assert (found.size, found.sampled) == (4_000, 1_000)
        assert one.reachable + sum(one.left_out.values()) == 1_000
        assert one.reachable_in_all == 4 * one.reachable
        assert one.reachable_in_all == pytest.approx(3_000, rel=0.1)


async def test_who_makes_a_list_sync_is_told_that_it_is_small(serve: Any, meta: FakeMeta, others: Others) -> None:
    for n in range(1_001):
        others.people.put(f"p{n}", **({"email": f"p{n}@example.com"} if n else {"plan": "none"}))
    for n in range(5):
        others.buyers.change(f"p{n}", True)
    async with serve() as api:
        name = await destination(api, meta)
        sync = pb.Sync(
            display_name="list", kind=pb.SYNC_KIND_LIST, destination=name, audience=support.AUDIENCE, paused=True
        )
        made = await api.syncs.CreateSync(pb.CreateSyncRequest(parent=support.PARENT, sync_id="list", sync=sync))
        few = "Of 5 members 4 would be on the list: fewer than 1,000 people are too few for most platforms."
        assert list(made.advice) == [few]
        dry = plan.DryRunSyncRequest(name=made.sync.name, page_size=2)
        page = await api.syncs.DryRunSync(dry)
        assert list(page.advice) == [few]
        dry.page_token = page.next_page_token
        assert dry.page_token and not (await api.syncs.DryRunSync(dry)).advice, "it is told once"
        dry.page_token = ""
        for n in range(5, 2_500):
            others.buyers.change(f"p{n}", True)
        for n in range(1_001, 2_500):
            others.people.put(f"p{n}", email=f"p{n}@example.com")
        (said,) = (await api.syncs.DryRunSync(dry)).advice
        assert said.startswith("Of 2,500 members about 2,4") and "fewer than 3,000 people are a small list" in said
        for n in range(2_500, 4_000):
            others.people.put(f"p{n}", email=f"p{n}@example.com")
            others.buyers.change(f"p{n}", True)
        assert not (await api.syncs.DryRunSync(dry)).advice
    assert not meta.requests


async def test_destinations_of_event_syncs_are_told_too(serve: Any, hooks: Hooks, others: Others) -> None:
    """They take no lists: how many members' events they would get, without a level."""
    for n in range(3):
        others.people.put(f"p{n}", email=f"p{n}@example.com")
        others.people.say(f"p{n}", ads=n > 0)
        others.buyers.change(f"p{n}", True)
    async with serve() as api:
        name = await api.destination("hook", hooks.url, required_consents=["ads"])
        (one,) = (await readiness(api)).destinations
        assert (one.destination, one.kind, one.reachable, one.problem) == (name, pb.SYNC_KIND_EVENT, 2, "")
        assert dict(one.left_out) == {"consent:ads": 1}
        assert one.level == pb.READINESS_LEVEL_UNSPECIFIED
        made = await api.syncs.CreateSync(
            pb.CreateSyncRequest(
                parent=support.PARENT,
                sync_id="events",
                sync=pb.Sync(display_name="e", kind=pb.SYNC_KIND_EVENT, destination=name, audience=support.AUDIENCE),
            )
        )
        assert not made.advice, "there is no list that could be small"
        (one,) = (await readiness(api)).destinations
        assert one.sync == made.sync.name
