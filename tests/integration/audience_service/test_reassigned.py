"""Merges are undone and people erased while the service runs, is killed, and loses Redis."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from headrace_audience.definition import parse_definition
from headrace_audience.facts import facts_of_resolved
from headrace_audience.reference import Reference
from headrace_audience.settings import Settings

from headrace.domain.times import now_us
from headrace.storage.mongo.client import Database
from headrace.storage.streams import client as streams
from tests.integration.audience_service.test_takeover import consistent
from tests.support.audience import QUICK, AudienceClient, serving_audience
from tests.support.reassigned import Stores, World
from tests.support.resolved import event
from tests.support.settings import MakeSettings

PARTITIONS = QUICK["partitions"]
TWICE: dict[str, Any] = {"where": {"event": "Purchased", "count": {"gte": 2}}}
NEVER: dict[str, Any] = {"where": {"not": {"event": "Purchased"}}}
GOLD: dict[str, Any] = {"where": {"trait": "plan", "eq": "gold"}}
AUDIENCES = {"twice": TWICE, "never": NEVER, "gold": GOLD}
FROZEN: dict[str, Any] = {"kind": "static", "where": {"event": "Purchased"}}


@pytest.fixture
def settings(db: Database, make_settings: MakeSettings) -> Settings:
    return make_settings(Settings, **QUICK)


@pytest.fixture
def world() -> World:
    return World(PARTITIONS, clock=now_us)


@pytest.fixture
def line(world: World, db: Database, redis: streams.Redis) -> Stores:
    return Stores(world, db, redis)


async def has_true_members(client: AudienceClient, world: World, audience_ids: Iterable[str] = AUDIENCES) -> None:
    """Wait until the members are those of what is left, by the naive reference; the batch evaluator agrees."""
    reference = Reference(list(facts_of_resolved(world.log.values(), world.into)))
    for audience_id in audience_ids:
        await client.has_members(audience_id, reference.members(parse_definition(AUDIENCES[audience_id]), now_us()))
        assert list((await client.verify(audience_id)).mismatched_profile_ids) == []


async def start(client: AudienceClient) -> None:
    for audience_id, definition in AUDIENCES.items():
        await client.start(audience_id, definition)


async def test_an_undone_merge_gives_everybody_back_what_is_theirs(
    settings: Settings, db: Database, world: World, line: Stores
) -> None:
    async with serving_audience(settings) as client:
        await start(client)
        await client.create("frozen", FROZEN)
        world.resolve(event("a", "Purchased"))
        world.resolve(event("b", "Purchased"))
        world.resolve(event("b", traits={"plan": "gold"}))
        world.resolve(event("c", "Viewed"))
        await line.flush()
        await has_true_members(client, world)
        await client.activate("frozen")
        await client.active("frozen")
        await client.has_members("frozen", ["a", "b"])

        world.resolve(event("a", "Viewed"), "b")
        world.resolve(event("c", "Viewed"), "b")  # the survivor is merged again
        await line.flush()
        await client.has_members("frozen", ["c"])
        await client.has_members("twice", ["c"])

        world.split("c", "a", "b")
        await line.flush()
        await client.has_members("frozen", ["a"])
        await has_true_members(client, world)
        world.split("a", "b")
        await line.flush()
        await client.has_members("frozen", ["a", "b"])
        await has_true_members(client, world)
        world.repeat(random.Random(1))
        world.resolve(event("b", "Purchased"))
        await line.flush()
        await has_true_members(client, world)

        changes = await client.changes()
        of_gold = [(c.profile_id, c.member, c.cause) for c in changes if c.audience_id == "gold"]
        assert of_gold == [
            ("b", True, "event"),
            ("b", False, "merge"),
            ("a", True, "merge"),
            ("a", False, "merge"),
            ("c", True, "merge"),
            ("c", False, "reassignment"),
            ("a", True, "reassignment"),
            ("a", False, "reassignment"),
            ("b", True, "reassignment"),
        ] or sorted(of_gold) == sorted(
            [
                ("b", True, "event"),
                ("b", False, "merge"),
                ("c", True, "merge"),
                ("c", False, "reassignment"),
                ("a", True, "reassignment"),
                ("a", False, "reassignment"),
                ("b", True, "reassignment"),
            ]
        )
    await consistent(db)
