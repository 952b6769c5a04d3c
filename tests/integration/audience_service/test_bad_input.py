"""Definitions that are none, over gRPC: each is refused by its place, in a clear and short sentence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from headrace_audience.settings import Settings

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import Audience
from headrace.rpc import errors
from headrace.storage.mongo.client import Database
from tests.support.audience import COUNT, QUICK, AudienceClient, serving_audience
from tests.support.settings import MakeSettings

A = {"event": "A"}


def text(where: Any, **more: Any) -> str:
    return json.dumps({"where": where, **more})


def of_p(op: str, value: str) -> str:
    return f'{{"where": {{"event": "A", "where": [{{"property": "p", "{op}": {value}}}]}}}}'


BAD: dict[str, tuple[str, str, str]] = {
    "10,000 conditions": (
        text({"any": [{"event": f"E{i}"} for i in range(10_000)]}),
        ".where.any[299]",
        "more than 300",
    ),
    "a text of 10,000 conditions": (" or ".join(["performed A"] * 10_000), "", "column 4486: any[299]: there are more"),
    "a depth of 1,000": ('{"where":' + '{"not":' * 1_000 + '{"event":"A"}' + "}" * 1_001, "", "is nested too deep"),
    "a depth of 100": (
        '{"where":' + '{"not":' * 100 + '{"event":"A"}' + "}" * 101,
        ".where" + ".not" * 50,
        "more than 50",
    ),
    "a text of depth 1,000": ("not " * 1_000 + "performed A", "", "line 1, column 401: is nested more than 50 deep"),
    "10,000 years": (text({**A, "within": "3650000d"}), ".where.within", "must be shorter than 100 years"),
    "no time": (text({**A, "within": "0d"}), ".where.within", "must be longer than nothing"),
    "windows that are no pair": (
        text({"all": [A, {**A, "within": "7d", "older_than": "30d"}]}),
        ".where.all[1].older_than",
        "older_than must be shorter than within",
    ),
    "two windows": (
        text({**A, "within": "7d", "since": "2026-01-01"}),
        ".where",
        "'within' and 'since' do not go together",
    ),
    "a number as text": (of_p("gt", '"5"'), ".where.where[0].gt", "must be a number"),
    "no number": (of_p("gt", "NaN"), ".where.where[0].gt", "must be a finite number"),
    "an infinite number": (of_p("eq", "-Infinity"), ".where.where[0].eq", "must be a finite number"),
    "400 digits": (of_p("eq", "9" * 400), ".where.where[0].eq", "must be a finite number"),
    "5,000 digits": (of_p("eq", "9" * 5_000), ".where.where[0].eq", "must be a finite number"),
    "5,000 digits in text form": (
        "performed A count > " + "9" * 5_000,
        "",
        "line 1, column 21: gt: must be a whole number",
    ),
    "an exponent": (of_p("eq", "1e999"), ".where.where[0].eq", "must be a finite number"),
    "a large count": (text({**A, "count": {"gte": 10**30}}), ".where.count.gte", "must be at most 10000"),
    "an empty list": (text({"any": [A, {"all": []}]}), ".where.any[1].all", "must not be an empty list"),
    "a key that stands twice": (
        '{"where": {"any": [{"event": "A"}, {"event": "B", "count": {"gte": 1, "gte": 2}}]}}',
        ".where.any[1].count",
        "has the key 'gte' twice in one object",
    ),
    "a NUL": (text({"event": "A\0"}), ".where.event", "has a NUL character"),
    "a NUL in JSON": ('{"where": {"event": "\0"}}', "", "is no valid JSON: Invalid control character"),
    "half a pair": ('{"where": {"event": "\\ud800"}}', ".where.event", "has half a surrogate pair"),
    "half a pair as a key": ('{"\\ud800": 1, "where": {}}', ".\\ud800", "unknown key"),
    "half a pair as a kind": ('{"kind": "\\udfff", "where": {"event": "A"}}', ".kind", 'must be "dynamic" or "static"'),
    "a line as a key": (text({**A, "a\nb\x1b[2J": 1}), ".where.a\\nb\\x1b[2J", "unknown key"),
    "a long key": (text({"x" * 100_000: 1}), ".where", "unknown key"),
    "a long key of the whole": (json.dumps({"where": A, "x" * 100_000: 1}), "", "unknown key"),
    "a long value": (text(A, kind=["x" * 100_000]), ".kind", "must be"),
    "a long name": (text({"event": "x" * 201}), ".where.event", "is longer than 200 characters"),
    "a long word": ("performed " + "x" * 100_000, "", "line 1, column 11: event: is longer than 200"),
    "nobody": (text({**A, "count": {"lt": 0}}), ".where.count.lt", "nobody would be in"),
    "an audience that was deleted": (
        text({"not": {"audience": "gone"}}),
        ".where.not.audience",
        "there is no audience 'gone'",
    ),
    "an audience that is misspelt": (text({"audience": "ther"}), ".where.audience", "did you mean 'there'?"),
    "itself": (text({"any": [A, {"audience": "bad"}]}), ".where.any[1].audience", "in a circle: bad -> bad"),
    "a text that names one that was deleted": (
        "performed A and\n not in audience gone",
        "",
        "line 2, column 18: there is no audience 'gone'",
    ),
    "a text that names itself": (
        "performed A\nor in audience bad",
        "",
        "line 2, column 16: audiences refer to each other in a circle: bad -> bad",
    ),
    "a mark in front of what is wrong": (
        "\ufeffperformed A in last 0d",
        "",
        "line 1, column 21: within: must be longer",
    ),
}


@pytest.fixture
async def client(db: Database, make_settings: MakeSettings) -> AsyncIterator[AudienceClient]:
    async with serving_audience(make_settings(Settings, **QUICK)) as serving:
        yield serving


async def test_each_is_refused_by_its_place(client: AudienceClient) -> None:
    await client.create("there", COUNT)
    await client.create("gone", COUNT)
    await client.delete("gone")
    await client.create("bad", COUNT)
    for what, (definition, place, said) in BAD.items():
        update = pb.UpdateAudienceRequest(audience=Audience(name=client.name("bad"), definition=definition))
        preview = pb.PreviewAudienceRequest(parent=client.parent, definition=definition)
        calls = [(client.stub.UpdateAudience(update), "audience.definition")]
        if "circle" not in said:  # a preview has no id
            calls.append((client.stub.PreviewAudience(preview), "definition"))
        for call, field in calls:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert errors.reason_of(refused.value) == errors.INVALID_ARGUMENT, (what, refused.value.details())
            ((found, description),) = errors.field_violations(refused.value)
            assert said in description, (what, description)
            assert len(found) < 1_100 and len(description) < 1_100, what
            assert found == field + place or what.startswith("a long key of"), (what, found)
    assert json.loads((await client.get("bad")).definition) == COUNT


async def test_people_in_place_of_groups_are_refused_by_the_place(client: AudienceClient) -> None:
    await client.create("there", COUNT)
    wrong = {"of": "groups", "where": {"all": [{"trait": "plan", "eq": 1}, {"audience": "there"}]}}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create("accounts", wrong)
    field, description = errors.field_violations(refused.value)[0]
    assert field == "audience.definition.where.all[1].audience"
    assert description == "audience 'there' is of people; here one of groups is needed"


async def test_a_mark_in_front_is_no_part_of_a_definition(client: AudienceClient) -> None:
    for number, definition in enumerate(("\ufeff" + json.dumps(COUNT), "\ufeffperformed Purchased")):
        made = await client.create(f"marked-{number}", definition)
        assert json.loads(made.definition) == COUNT


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "x" * 201, "\u202eback", " \t "])
async def test_names_for_people(client: AudienceClient, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create("named", COUNT, display_name=name)
    ((field, _),) = errors.field_violations(refused.value)
    assert field == "audience.display_name"
    assert (await client.create("named", COUNT, display_name="  Käufer ")).display_name == "Käufer"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create("-dash", COUNT)
    assert errors.field_violations(refused.value)[0][0] == "audience_id"
