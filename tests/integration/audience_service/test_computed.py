"""Audiences over computed traits, beside the real identity service: saved, followed, explained, previewed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
from headrace_audience.definitions.computed_traits import ComputedTraits
from headrace_audience.settings import Settings
from headrace_audience.store import AUDIENCES, SEPARATOR
from headrace_identity.bootstrap import open_service as open_identity
from headrace_identity.settings import Settings as IdentitySettings

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.identity.v1 import computed_trait_service_pb2 as traits_api
from headrace.api.identity.v1.computed_trait_service_pb2_grpc import ComputedTraitServiceStub
from headrace.domain.times import DAY_US, now_us
from headrace.rpc import errors
from headrace.rpc.channel import with_token
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.support.audience import QUICK, AudienceClient, eventually, serving_audience
from tests.support.resolved import FakeIdentity, event
from tests.support.settings import MakeSettings

NOBODY = "127.0.0.1:1"
SPENT: Mapping[str, Any] = {"event": "Purchased", "within": "30d", "compute": {"sum": "value"}}
SPENDERS = {"where": {"all": [{"computed": "spent-30d", "gte": 500}, {"not": {"computed": "spent-30d", "gt": 9999}}]}}


class Traits:
    """Calls of ComputedTraitService in one workspace."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub

    async def create(self, trait_id: str, definition: Mapping[str, Any]) -> None:
        trait = traits_api.ComputedTrait(definition=json.dumps(definition).encode())
        await self.stub.CreateComputedTrait(
            traits_api.CreateComputedTraitRequest(
                parent="workspaces/acme", computed_trait_id=trait_id, computed_trait=trait
            )
        )

    async def update(self, trait_id: str, definition: Mapping[str, Any] | str) -> None:
        text = definition if isinstance(definition, str) else json.dumps(definition)
        trait = traits_api.ComputedTrait(name=_name(trait_id), definition=text.encode())
        await self.stub.UpdateComputedTrait(traits_api.UpdateComputedTraitRequest(computed_trait=trait))

    async def delete(self, trait_id: str) -> None:
        await self.stub.DeleteComputedTrait(traits_api.DeleteComputedTraitRequest(name=_name(trait_id)))


def _name(trait_id: str) -> str:
    return f"workspaces/acme/computedTraits/{trait_id}"


@pytest.fixture
async def identity_address(db: Database, make_settings: MakeSettings) -> AsyncIterator[str]:
    settings = make_settings(IdentitySettings, workspace_address=NOBODY, partitions=QUICK["partitions"])
    async with open_identity(settings) as running:
        yield running.grpc_address


@pytest.fixture
async def traits(identity_address: str, make_settings: MakeSettings) -> AsyncIterator[Traits]:
    token = make_settings(Settings).service_token.get_secret_value()
    async with with_token(identity_address, token) as channel:
        yield Traits(ComputedTraitServiceStub(channel))


@pytest.fixture
async def client(db: Database, identity_address: str, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    settings = make_settings(Settings, **QUICK, identity_address=identity_address, audience_computed_seconds=0.1)
    async with serving_audience(settings) as serving:
        yield serving


@pytest.fixture
def identity(db: Database, redis: streams.Redis) -> FakeIdentity:
    return FakeIdentity(db, redis, QUICK["partitions"])


def bought(profile_id: str, value: float, days_ago: int = 0) -> Any:
    return event(profile_id, "Purchased", at_us=now_us() - days_ago * DAY_US, properties={"value": value})


async def refused(call: Any, reason: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert errors.reason_of(caught.value) == reason, caught.value.details()
    return caught.value


async def test_an_audience_is_exact_and_follows_its_computed_trait(
    client: AudienceClient, traits: Traits, identity: FakeIdentity
) -> None:
    await traits.create("spent-30d", SPENT)
    await identity.resolve(bought("old", 800, 40), bought("rich", 300), bought("rich", 250, 29), bought("poor", 499.99))
    await client.start("spenders", SPENDERS)
    await client.has_members("spenders", ["rich"])
    await identity.resolve(bought("poor", 0.01))
    await client.has_members("spenders", ["poor", "rich"])
    assert not (await client.verify("spenders")).mismatched_profile_ids

    await traits.update("spent-30d", {**SPENT, "within": "60d"})
    await client.has_members("spenders", ["old", "poor", "rich"])
    (change,) = await client.changes(profile_id="old")
    assert (change.member, change.cause) == (True, "definition")
    await client.active("spenders")
    assert not (await client.verify("spenders")).mismatched_profile_ids

    await traits.delete("spent-30d")
    await client.has_members("spenders", [])
    warning = "There is no computed trait 'spent-30d' any more: nobody has a value of it."
    assert (await client.get("spenders")).warnings == [warning]
    await traits.create("spent-30d", SPENT)
    await client.has_members("spenders", ["poor", "rich"])
    assert not (await client.get("spenders")).warnings


async def test_what_does_not_exist_is_refused_by_its_place(client: AudienceClient, traits: Traits) -> None:
    await traits.create("spent-30d", SPENT)
    wrong = {"where": {"any": [{"event": "A"}, {"not": {"computed": "spent-3od", "gte": 1}}]}}
    error = await refused(client.create("x", wrong), errors.INVALID_ARGUMENT)
    ((field, description),) = errors.field_violations(error)
    assert field == "audience.definition.where.any[1].not.computed"
    assert description == "there is no computed trait 'spent-3od' in this workspace; did you mean 'spent-30d'?"
    request = pb.PreviewAudienceRequest(parent=client.parent, definition=json.dumps(wrong))
    error = await refused(client.stub.PreviewAudience(request), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error)[0][0] == "definition.where.any[1].not.computed"

    await client.create("y", SPENDERS)
    await refused(client.update("y", wrong), errors.INVALID_ARGUMENT)
    await traits.delete("spent-30d")
    error = await refused(client.activate("y"), errors.INVALID_ARGUMENT)
    assert errors.field_violations(error)[0][0] == "audience.definition.where.all[0].computed"


async def test_preview_and_explanation_know_the_value(
    client: AudienceClient, traits: Traits, identity: FakeIdentity
) -> None:
    await traits.create("spent-30d", SPENT)
    await traits.create("prices", {"event": "Purchased", "compute": {"max": "prise"}})
    await identity.resolve(bought("p", 300.5), bought("p", 200), bought("q", 1))
    request = pb.PreviewAudienceRequest(parent=client.parent, definition="computed spent-30d >= 500")
    preview = await client.stub.PreviewAudience(request)
    assert (preview.size, list(preview.warnings)) == (1, [])
    request = pb.PreviewAudienceRequest(parent=client.parent, definition="computed prices >= 500")
    assert list((await client.stub.PreviewAudience(request)).warnings) == ["'Purchased' has no property 'prise'."]
    await traits.create("orders", {"event": "Purchased", "compute": "count"})
    request = pb.PreviewAudienceRequest(parent=client.parent, definition="computed orders < 1")
    (warning,) = (await client.stub.PreviewAudience(request)).warnings
    assert warning.startswith("Nobody passes the test of the computed trait 'orders'")

    await client.start("spenders", SPENDERS)
    await client.create("others", {"where": {"not": {"audience": "spenders"}}})
    await client.activate("others")
    await client.has_members("others", ["q"])
    explained = await client.stub.ExplainMembership(
        pb.ExplainMembershipRequest(name=client.name("spenders"), profile_id="p")
    )
    assert explained.member
    first = explained.condition.parts[0]
    assert (first.kind, first.text, first.value) == ("computed", "computed spent-30d >= 500", b"500.5")
    assert (first.counted, len(first.events)) == (2, 2)


async def test_what_is_not_computed_or_static_is_not_started(
    client: AudienceClient, traits: Traits, identity: FakeIdentity, db: Database
) -> None:
    await traits.create("spent-30d", SPENT)
    await identity.resolve(bought("p", 600))
    await client.start("followed", SPENDERS)
    await client.start("paused", SPENDERS)
    await client.pause("paused")
    await client.start("static", {"kind": "static", **SPENDERS})
    await client.has_members("static", ["p"])
    generations = {d["a"]: d["gen"] async for d in db[AUDIENCES].find({"a": {"$exists": True}})}

    await traits.update("spent-30d", json.dumps(SPENT, indent=2))  # written otherwise: the same
    await traits.create("another", SPENT)
    await traits.update("spent-30d", {**SPENT, "event": "Rented"})
    await client.has_members("followed", [])
    now = {d["a"]: d["gen"] async for d in db[AUDIENCES].find({"a": {"$exists": True}})}
    assert now == {**generations, "followed": generations["followed"] + 1}
    assert await client.members("static") == await client.members("paused") == ["p"]

    await client.activate("paused")
    await client.has_members("paused", [])


async def test_a_new_version_brings_its_computed_traits(
    client: AudienceClient, traits: Traits, identity: FakeIdentity, db: Database
) -> None:
    await traits.create("spent-30d", SPENT)
    await identity.resolve(bought("rich", 600), bought("poor", 6))
    await client.start("buyers", {"where": {"event": "Purchased"}})
    await client.has_members("buyers", ["poor", "rich"])
    await client.update("buyers", SPENDERS)
    await client.has_members("buyers", ["rich"])
    await traits.update("spent-30d", {**SPENT, "compute": {"sum": "price"}})
    await client.has_members("buyers", [])

    # One that waits to be confirmed is followed too.
    await client.update("buyers", {"where": {"event": "Purchased"}})
    await client.has_members("buyers", ["poor", "rich"])
    version = {"def": json.dumps(SPENDERS), "traits": ["spent-30d"], "computed": {"spent-30d": json.dumps(SPENT)}}
    waits = {"gen": 0, "at": now_us(), "parts": {}, "ready": True, "held": True}
    await db[AUDIENCES].update_one({"a": "buyers"}, {"$set": {"pending": {**version, **waits}, "updated": now_us()}})
    await client.has_members("buyers", [])


async def test_a_computed_trait_that_moves_many_asks_first(
    db: Database, identity_address: str, make_settings: MakeSettings, traits: Traits, identity: FakeIdentity
) -> None:
    careful = QUICK | {"audience_confirm_share": 0.5, "audience_confirm_members": 1}
    settings = make_settings(Settings, **careful, identity_address=identity_address, audience_computed_seconds=0.05)
    async with serving_audience(settings) as client:

        async def held() -> Any:
            async def is_held() -> bool:
                return (await client.get("spenders")).pending_version.needs_confirmation

            await eventually(is_held)
            return (await client.get("spenders")).pending_version

        async def settled() -> Any:
            """The audience, once every replica had time to look at the traits several times."""
            await asyncio.sleep(0.5)
            return await client.get("spenders")

        named = client.name("spenders")
        await traits.create("spent-30d", SPENT)
        await identity.resolve(bought("rich", 600), bought("poor", 6))
        await client.start("spenders", SPENDERS)
        await client.has_members("spenders", ["rich"])

        await traits.update("spent-30d", {**SPENT, "compute": {"sum": "price"}})
        version = await held()
        assert (version.change.enter, version.change.leave, json.loads(version.definition)) == (0, 1, SPENDERS)
        await identity.resolve(bought("poor", 600))
        await client.has_members("spenders", ["poor", "rich"])  # by what the trait was

        await traits.update("spent-30d", SPENT)

        async def nothing_waits() -> bool:
            return not (await client.get("spenders")).HasField("pending_version")

        await eventually(nothing_waits)

        # Discarded it is not offered again, until somebody asks, or it is yet another one.
        await traits.delete("spent-30d")
        await held()
        (warning,) = (await client.get("spenders")).warnings
        assert warning == "There is no computed trait 'spent-30d' any more: by the new version nobody has a value."
        await client.stub.DiscardAudienceVersion(pb.DiscardAudienceVersionRequest(name=named))
        found = await settled()
        assert not found.HasField("pending_version") and await client.members("spenders") == ["poor", "rich"]
        assert "is another one now, and the version with it was discarded" in found.warnings[0]
        await traits.create("spent-30d", {**SPENT, "event": "Rented"})
        assert (await held()).change.leave == 2
        await client.stub.DiscardAudienceVersion(pb.DiscardAudienceVersionRequest(name=named))
        assert not (await settled()).HasField("pending_version")
        await client.update("spenders", SPENDERS)
        await held()
        assert await client.members("spenders") == ["poor", "rich"]

        # Pausing and activating is no way round it.
        await client.pause("spenders")
        await client.activate("spenders")
        assert (await held()).change.leave == 2
        assert await client.members("spenders") == ["poor", "rich"]
        await client.stub.ConfirmAudienceVersion(pb.ConfirmAudienceVersionRequest(name=named))
        await client.has_members("spenders", [])
        assert not (await client.get("spenders")).warnings


async def test_a_definition_that_somebody_gave_comes_before_what_traits_compute(
    db: Database, identity_address: str, make_settings: MakeSettings, traits: Traits, identity: FakeIdentity
) -> None:
    careful = QUICK | {"audience_confirm_share": 0.5, "audience_confirm_members": 1}
    settings = make_settings(Settings, **careful, identity_address=identity_address, audience_computed_seconds=0.05)
    viewed = {"where": {"event": "Viewed"}}
    async with serving_audience(settings) as client:

        async def waits(definition: Mapping[str, Any]) -> None:
            async def is_held() -> bool:
                version = (await client.get("spenders")).pending_version
                return version.needs_confirmation and json.loads(version.definition) == definition

            await eventually(is_held)

        await traits.create("spent-30d", SPENT)
        await identity.resolve(bought("rich", 600), event("other", "Viewed"))
        await client.start("spenders", SPENDERS)
        await client.has_members("spenders", ["rich"])
        await client.update("spenders", viewed)
        await waits(viewed)
        await traits.update("spent-30d", {**SPENT, "event": "Rented"})
        await asyncio.sleep(0.5)
        await waits(viewed)
        await client.stub.DiscardAudienceVersion(pb.DiscardAudienceVersionRequest(name=client.name("spenders")))
        await waits(SPENDERS)
        assert await client.members("spenders") == ["rich"]


async def test_without_identity_what_was_known_holds(
    db: Database, make_settings: MakeSettings, identity: FakeIdentity
) -> None:
    settings = make_settings(Settings, **QUICK, identity_address=NOBODY, audience_computed_seconds=0.05)
    async with serving_audience(settings) as client:
        await client.create("y", {"where": {"event": "Purchased"}})
        await refused(client.create("x", SPENDERS), errors.STORE_UNAVAILABLE)
        # As if it had been saved while identity was there.
        saved = {"def": json.dumps(SPENDERS), "traits": ["spent-30d"], "computed": {"spent-30d": json.dumps(SPENT)}}
        await client.activate("y")
        await client.active("y")
        await db[AUDIENCES].update_one(
            {"a": "y"}, {"$set": {**saved, "updated": now_us(), "state": "FILLING", "done": []}, "$inc": {"gen": 1}}
        )
        await identity.resolve(bought("p", 600), bought("q", 6))
        await client.has_members("y", ["p"])

        async def is_active() -> bool:
            return bool(await db[AUDIENCES].count_documents({"a": "y", "state": "ACTIVE", "gen": 2}))

        await eventually(is_active)


async def test_a_workspace_that_cannot_be_answered_for_holds_up_no_other(
    client: AudienceClient, traits: Traits, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await traits.create("spent-30d", SPENT)
    await client.start("spenders", SPENDERS)
    other = await db[AUDIENCES].find_one({"a": "spenders"})
    assert other is not None
    before = other | {"_id": f"aaaa{SEPARATOR}spenders", "w": "aaaa"}
    await db[AUDIENCES].delete_one({"a": "spenders"})
    await db[AUDIENCES].insert_many([before, other])
    known = ComputedTraits.all
    asked: list[str] = []

    async def refused_to_one(self: ComputedTraits, workspace_id: str) -> dict[str, str]:
        asked.append(workspace_id)
        if workspace_id == "aaaa":
            raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), None, None)
        return await known(self, workspace_id)

    monkeypatch.setattr(ComputedTraits, "all", refused_to_one)
    await traits.update("spent-30d", {**SPENT, "within": "60d"})

    async def is_followed() -> bool:
        found = await db[AUDIENCES].find_one({"w": "acme", "a": "spenders"})
        return found is not None and "60d" in found["computed"]["spent-30d"]

    await eventually(is_followed)
    assert "aaaa" in asked
