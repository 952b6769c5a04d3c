"""The batch evaluator on Spark: the worked cases, random definitions and histories, and an archive that changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from headrace_audience.batch import queries
from headrace_audience.distributed.shards import Question
from headrace_audience.distributed.spark import SparkEvaluator
from headrace_audience.language.definition import Definition
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import Fact, facts_of_people, table_of
from headrace_audience.offline.reference import Audiences, Reference
from headrace_audience.store import AUDIENCES, MEMBERSHIPS

from headrace.cli.main import main
from headrace.domain.times import DAY_US, SECOND_US, now_us, parse_time_us
from headrace.storage.mongo.client import Client, Database
from headrace.storage.streams.client import Redis
from tests.support import audience_histories as random
from tests.support.archive import Archive
from tests.support.resolved import event
from tests.support.spark import local_spark

if TYPE_CHECKING:
    from pyspark import SparkContext

CASES = json.loads((Path(__file__).parents[2] / "cases" / "audience.json").read_text())["cases"]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkContext]:
    with local_spark() as context:
        yield context


def test_all_worked_cases(spark: SparkContext) -> None:
    """One job: the people of all cases together, each case asked of all of them."""
    facts: list[Fact] = []
    questions: list[Question] = []
    for case in CASES:
        if "expect_error" in case:
            continue
        definition, at_us = parse_definition(case["definition"]), parse_time_us(case["at"])
        of_case = facts_of_people(case["people"], at_us)
        facts += [replace(fact, profile=f"{case['id']}/{fact.profile}") for fact in of_case]
        questions.append(Question(case["id"], definition, at_us))
        for moment in case.get("enters_at", {}).values():
            entry = parse_time_us(moment)
            questions += [Question(f"{case['id']} before {moment}", definition, entry - 1)]
            questions += [Question(f"{case['id']} at {moment}", definition, entry)]
    found = SparkEvaluator.of_events(spark, table_of(facts), shards=2).outlook(questions)
    for case in CASES:
        if "expect_error" in case:
            continue
        members = _of_case(found[case["id"]], case["id"])
        assert sorted(members) == sorted(case["expect_members"]), case["id"]
        for profile, moment in case.get("leaves_at", {}).items():
            assert members[profile].changes_at_us == parse_time_us(moment)
        for profile, moment in case.get("enters_at", {}).items():
            assert profile not in _of_case(found[f"{case['id']} before {moment}"], case["id"])
            then = _of_case(found[f"{case['id']} at {moment}"], case["id"])
            assert then[profile].since_us == parse_time_us(moment)


def _of_case(outlook: list[queries.Outlook], case_id: str) -> dict[str, queries.Outlook]:
    people = (found.profile.partition(f"{case_id}/") for found in outlook)
    return {name: found for found, (before, _, name) in zip(outlook, people, strict=True) if not before and name}


def crowd(r: Random, worlds: int) -> list[Fact]:
    """Histories of many people."""
    return [
        replace(fact, profile=f"{world}-{fact.profile}", message_id=f"{world}-{fact.message_id}")
        for world in range(worlds)
        for fact in random.history(r)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_audiences_that_name_each_other(spark: SparkContext, seed: int) -> None:
    r = Random(seed)
    facts = crowd(r, 30)
    profiles = tuple(sorted({fact.profile for fact in facts}))
    moments = [random.moment(r) for _ in range(2)]
    members: list[str] = []
    while not 5 < len(members) < len(profiles) - 5:  # rather audiences that part people
        definitions = random.audiences(r)
        audiences: Audiences = {**definitions, "nobody": random.some(r, profiles, 5, 30)}
        members = Reference(facts, audiences).members(definitions["three"], moments[0])
    questions = [Question(f"{name} {at}", d, at) for name, d in definitions.items() for at in moments]
    _agree(spark, facts + random.some(r, tuple(facts), 20, 40), questions, audiences)


@pytest.mark.long
def test_many_different_conditions(spark: SparkContext) -> None:
    r = Random(5)
    facts = crowd(r, 20)
    asked = [Question(str(n), random.asked_one(r).last, random.moment(r)) for n in range(40)]
    _agree(spark, facts, asked, {})


def _agree(spark: SparkContext, facts: list[Fact], questions: list[Question], audiences: Audiences) -> None:
    """Spark, DuckDB alone and the reference say the same of everybody."""
    evaluator = SparkEvaluator.of_events(spark, table_of(facts), shards=2)
    found = evaluator.outlook(questions, audiences)
    reference = Reference(facts, audiences)
    with duckdb.connect() as connection:
        connection.register("events", table_of(facts))
        for question in questions:
            assert found[question.key] == queries.outlook(connection, question.definition, question.at_us, audiences)
            members = [outlook.profile for outlook in found[question.key]]
            assert members == reference.members(question.definition, question.at_us)
    assert any(found.values())
    assert evaluator.members(questions[:3], audiences) == {
        q.key: [outlook.profile for outlook in found[q.key]] for q in questions[:3]
    }
    assert evaluator.sizes(questions, audiences) == {key: len(members) for key, members in found.items()}


ASKED: dict[str, dict[str, Any]] = {
    "bought": {"where": {"event": "A"}},
    "bought twice": {"where": {"event": "A", "count": {"gte": 2}}},
    "quiet": {"where": {"not": {"event": "A", "within": "10d"}}},
    "known": {"where": {"identifier": "email", "exists": True}},
}


@pytest.fixture
def archive(mongo: Client, db: Database, redis: Redis, tmp_path: Path) -> Archive:
    return Archive(mongo, db, redis, tmp_path / "archive")


@pytest.mark.parametrize("written", ["log", "files and log", "files"])
async def test_archive_with_merges_undone_merges_and_deletions(
    spark: SparkContext, archive: Archive, written: str
) -> None:
    """What the archive's own reader gives, wherever the rows lie."""
    r = Random(written)
    world, parts = archive.world, [f"part{n}" for n in range(60)]
    for turn in range(4):
        for number in range(40):
            part = r.choice([p for p in parts if p not in world.gone])
            known = world.parts()
            loser = r.choice(known) if known and r.random() < 0.25 else ""
            identifiers = [("email", f"{part}@x.org")] if r.random() < 0.3 else []
            at_us = now_us() - r.choice((SECOND_US, 5 * DAY_US, 30 * DAY_US))
            name = r.choice("ABCDEFG")
            message_id = f"m{turn}-{number}"
            world.resolve(event(part, name, at_us=at_us, message_id=message_id, identifiers=identifiers), loser)
        roots = sorted({world.survivor(p) for p in world.parts()})
        world.assign_anew(r, r.sample(roots, 3))
        if turn == 2:
            world.erase(sorted({world.survivor(p) for p in world.parts()})[0])
        await archive.stores.write()
        if written != "log":
            await archive.writer.run_once()
            if turn < 2 or written == "files":
                await archive.rewriter.follow()
    asked = [Question(key, parse_definition(text), now_us()) for key, text in ASKED.items()]
    content = await archive.reader.content("acme")
    assert len(content.survivors) > 0 and bool(content.paths) == (written != "log")
    evaluator = SparkEvaluator.of_content(spark, str(archive.folder), content, shards=2)
    found = evaluator.members(asked)
    for question in asked:
        assert found[question.key] == await _members_by_reader(archive, question.definition, question.at_us)
    people = {world.survivor(e.profile_id) for e in world.log.values()}
    assert set(found["bought"]) <= people and 0 < len(found["bought"]) < len(people)


async def _members_by_reader(archive: Archive, definition: Definition, at_us: int) -> list[str]:
    async with archive.reader.open("acme") as view:
        return await view.run(lambda connection: queries.evaluate(connection, definition, at_us))


def test_the_command_evaluates_on_spark(
    spark: SparkContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = next(case for case in CASES if "expect_members" in case)
    (tmp_path / "people.json").write_text(json.dumps(case["people"]))
    (tmp_path / "definition.json").write_text(json.dumps(case["definition"]))
    asked = ["audience", "eval", "--definition", str(tmp_path / "definition.json")]
    asked += ["--people", str(tmp_path / "people.json"), "--at", case["at"], "--json"]
    assert main([*asked, "--engine", "spark", "--engine", "batch", "--engine", "reference"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["engine"], answer["mismatches"]) == ("spark", [])
    assert [member["profile"] for member in answer["members"]] == sorted(case["expect_members"])


def test_audiences_of_groups_are_refused(spark: SparkContext) -> None:
    groups = parse_definition({"of": "groups", "where": {"members": "any", "where": {"event": "A"}}})
    evaluator = SparkEvaluator.of_events(spark, table_of([]))
    with pytest.raises(ValueError, match="groups"):
        evaluator.sizes([Question("g", groups, 0)])


@pytest.mark.long
async def test_operators_compare_all_audiences_of_a_workspace(
    spark: SparkContext,
    archive: Archive,
    db: Database,
    settings_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("HEADRACE_MONGO_URL", "HEADRACE_MONGO_DATABASE"):
        monkeypatch.setenv(name, settings_env[name])
    monkeypatch.setenv("HEADRACE_ARCHIVE_DIR", str(archive.folder))
    for number in range(12):
        archive.world.resolve(event(f"part{number % 8}", "AB"[number % 2], message_id=f"m{number}"))
    archive.world.resolve(event("part0", "C", message_id="merges"), "part2")
    await archive.stores.write()
    await archive.writer.run_once()
    definitions = {
        "bought": {"where": {"event": "A"}},
        "vip": {"kind": "static", "where": {"event": "A"}},
        "of-vip": {"where": {"all": [{"audience": "vip"}, {"audience": "bought"}]}},
        "draft": {"where": {"event": "B"}},
        "teams": {"of": "groups", "where": {"members": "any", "where": {"event": "A"}}},
    }
    members = {"bought": ["part0", "part4", "part6"], "vip": ["part4", "part1"], "of-vip": ["part4"]}
    for audience_id, definition in definitions.items():
        state = "DRAFT" if audience_id == "draft" else "ACTIVE"
        row = {"w": "acme", "a": audience_id, "state": state, "def": json.dumps(definition)}
        await db[AUDIENCES].insert_one(row)
        rows = [{"w": "acme", "a": audience_id, "p": p, "in": True} for p in members.get(audience_id, ())]
        if rows:
            await db[MEMBERSHIPS].insert_many(rows)

    async def admin(*more: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(main, ["admin", "evaluate", "acme", *more])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    status, shown, _ = await admin("--json")
    assert (status, json.loads(shown)) == (
        0,
        [{"audience": "bought", "size": 3}, {"audience": "of-vip", "size": 1}, {"audience": "vip", "size": 3}],
    )
    assert json.loads((await admin("draft", "--json"))[1]) == [{"audience": "draft", "size": 4}]
    assert json.loads((await admin("bought", "--at", "2001-01-01", "--json"))[1]) == [{"audience": "bought", "size": 0}]
    status, shown, _ = await admin("--compare", "--json")
    assert (status, [(row["audience"], row["same"]) for row in json.loads(shown)]) == (
        0,
        [("bought", True), ("of-vip", True)],
    )
    await db[MEMBERSHIPS].update_one({"a": "bought", "p": "part6"}, {"$set": {"p": "part1"}})
    status, shown, _ = await admin("bought", "--compare", "--json")
    assert status == 1
    assert json.loads(shown) == [
        {"audience": "bought", "live": 3, "batch": 3, "same": False, "mismatched": ["part1", "part6"]}
    ]
    assert (await admin("nobody"))[2] == "error: there is no audience 'nobody' in a state that can be evaluated\n"
    assert "is about several people at once: teams" in (await admin("teams"))[2]
    assert "computed once" in (await admin("vip", "--compare"))[2]
