"""`headrace audience eval`: its files, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.cli import main

TRAITS = {"spent-30d": {"event": "Purchased", "within": "30d", "compute": {"sum": "value"}}}
EVENTS = [
    {
        "profile": p,
        "type": "track",
        "event": "Purchased",
        "timestamp": "2026-01-01T00:00:00Z",
        "properties": {"value": v},
    }
    for p, v in (("rich", 300.5), ("rich", 199.5), ("poor", 499.99))
]


def run(tmp_path: Path, *more: str, traits: object = TRAITS) -> int:
    (tmp_path / "d.txt").write_text("computed spent-30d >= 500")
    (tmp_path / "c.json").write_text(json.dumps(traits))
    (tmp_path / "e.ndjson").write_text("\n".join(json.dumps({**e, "messageId": str(i)}) for i, e in enumerate(EVENTS)))
    files = ["--definition", str(tmp_path / "d.txt"), "--events", str(tmp_path / "e.ndjson")]
    return main.main(["audience", "eval", *files, "--at", "2026-01-02", *more])


def test_computed_traits_are_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engines = [word for engine in ("incremental", "batch", "reference") for word in ("--engine", engine)]
    assert run(tmp_path, "--computed-traits", str(tmp_path / "c.json"), *engines, "--json") == 0
    (member,) = json.loads(capsys.readouterr().out)["members"]
    assert (member["profile"], member["leaves_at"]) == ("rich", "2026-01-31T00:00:00Z")


def test_one_that_is_not_given_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert "give the definition of the computed trait 'spent-30d' by --computed-traits" in capsys.readouterr().err


def test_a_wrong_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "c.json")
    assert run(tmp_path, "--computed-traits", file, traits=[1]) == 2
    assert "computed traits are a JSON object" in capsys.readouterr().err
    wrong = {"spent-30d": {"event": "Purchased", "compute": "median"}}
    assert run(tmp_path, "--computed-traits", file, traits=wrong) == 2
    assert 'spent-30d: compute: must be "count"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "definition", ["computed spent-30d >= 500", '{"where": {"computed": "spent-30d", "gte": 500}}']
)
def test_files_of_windows_editors_and_lines_with_separators_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], definition: str
) -> None:
    """A byte order mark is no part of a text, and of the line ends of Unicode only one ends a line of NDJSON."""
    lines = [json.dumps({**e, "messageId": f"{i}\u2028\x85"}, ensure_ascii=False) for i, e in enumerate(EVENTS)]
    for name, text in {"d": definition, "c": json.dumps(TRAITS), "e": "\r\n".join(lines)}.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    files = ["--definition", str(tmp_path / "d"), "--events", str(tmp_path / "e")]
    more = ["--computed-traits", str(tmp_path / "c"), "--at", "2026-01-02", "--json"]
    assert main.main(["audience", "eval", *files, *more]) == 0
    assert [m["profile"] for m in json.loads(capsys.readouterr().out)["members"]] == ["rich"]


PEOPLE = {"ann": {"traits": {"plan": "pro"}, "events": [{"event": "Viewed", "timestamp": "2026-01-01"}]}, "bob": []}
GROUP_EVENTS: list[dict[str, object]] = [
    {"profile": "ann", "type": "group", "groupId": "acme", "traits": {"plan": "gold"}},
    {"profile": "bob", "type": "group", "groupId": "acme"},
    {"profile": "ann", "type": "track", "event": "Viewed"},
    {"profile": "eve", "type": "group", "groupId": "rest"},
]


def over_people(tmp_path: Path, definition: str, *more: str, people: object = PEOPLE) -> int:
    (tmp_path / "d").write_text(definition)
    (tmp_path / "p").write_text(json.dumps(people))
    files = ["--definition", str(tmp_path / "d"), "--people", str(tmp_path / "p")]
    return main.main(["audience", "eval", *files, "--at", "2026-01-02", *more])


def over_groups(tmp_path: Path, *more: str) -> int:
    (tmp_path / "d").write_text("any member (performed Viewed in last 7d) with of groups")
    lines = [e | {"timestamp": "2026-01-01", "messageId": str(i)} for i, e in enumerate(GROUP_EVENTS)]
    (tmp_path / "e").write_text("\n".join(map(json.dumps, lines)))
    files = ["--definition", str(tmp_path / "d"), "--events", str(tmp_path / "e")]
    return main.main(["audience", "eval", *files, "--at", "2026-01-02", *more])


def test_audiences_are_given_as_text_as_json_or_as_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vip").write_text('trait plan = "pro" and not in audience gone')
    (tmp_path / "gone").write_text('["bob"]')
    given = ["--audience", f"vip={tmp_path}/vip", "--audience", f"gone={tmp_path}/gone"]
    assert over_people(tmp_path, "in audience vip", *given) == 0
    told = capsys.readouterr().out
    assert "ann" in told
    assert "1 member at 2026-01-02T00:00:00Z, by the incremental evaluator\n" in told


@pytest.mark.parametrize("definition", ["in audience vip", "not in audience vip"])
def test_an_audience_that_is_not_given_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], definition: str
) -> None:
    assert over_people(tmp_path, definition) == 2
    assert f"{tmp_path}/d: names the audience 'vip': give it by --audience vip=FILE" in capsys.readouterr().err
    (tmp_path / "vip").write_text("in audience other")
    assert over_people(tmp_path, definition, "--audience", f"vip={tmp_path}/vip") == 2
    assert "--audience vip: names the audience 'other'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1]", "a JSON array of ids, which are texts"),
        ('["a"', "no JSON"),
        ("performed", "line 1, column 10"),
        ('{"where": {}}', "where"),
    ],
)
def test_an_audience_that_is_neither_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    (tmp_path / "vip").write_text(content)
    assert over_people(tmp_path, "in audience vip", "--audience", f"vip={tmp_path}/vip") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/vip: " in error
    assert told in error


def test_an_array_is_no_definition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert over_people(tmp_path, '\n ["ann"]') == 2
    assert "line 2, column 2: a JSON array is no definition" in capsys.readouterr().err


def test_people_of_a_wrong_kind_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert over_people(tmp_path, "performed Viewed", people={"a": {"traits": [], "events": {}}}) == 2
    assert f"{tmp_path}/p: people['a'].events must be a list of events" in capsys.readouterr().err


def test_evaluators_that_are_compared_agree_or_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [word for engine in ("reference", "batch", "incremental") for word in ("--engine", engine)]
    assert over_people(tmp_path, "performed Viewed", *engines) == 0
    assert "by the reference evaluator; batch and incremental agree\n" in capsys.readouterr().out
    assert over_groups(tmp_path, *engines) == 0
    told = capsys.readouterr().out
    assert "1 group at 2026-01-02T00:00:00Z, by the reference evaluator; batch and incremental agree\n" in told
    from headrace_audience.offline import evaluate

    monkeypatch.setitem(evaluate._EVALUATORS, "batch", lambda *_: {"bob": (None, None)})
    assert over_people(tmp_path, "performed Viewed", *engines) == 1
    told = capsys.readouterr().out
    assert "by the reference evaluator; incremental agrees, batch DIFFERS\n" in told
    rows = [line.split() for line in told.splitlines()]
    assert ["ann", "batch", "out"] in rows
    assert ["bob", "batch", "in", "never"] in rows


def test_a_group_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert over_groups(tmp_path, "--explain", "acme", "--json") == 0
    explanation = json.loads(capsys.readouterr().out)["explanation"]
    assert (explanation["group"], explanation["member"]) == ("acme", True)
    assert explanation["condition"]["some_holding"] == ["ann"]
    assert explanation["changes_at"] == "2026-01-08T00:00:00Z"
    assert over_groups(tmp_path, "--explain", "rest") == 0
    assert "Out: 0 of 1 member with performed Viewed" in capsys.readouterr().out
    assert over_groups(tmp_path, "--explain", "other") == 2
    error = capsys.readouterr().err
    assert "there is no group 'other' in the events, such as 'acme', 'rest'" in error


def over_messages(tmp_path: Path, *more: str) -> int:
    """Events whose people are found by the identity rules: their profiles have ids that nobody knows."""
    lines: list[dict[str, object]] = [
        {"type": "track", "event": "Viewed", "userId": "ann"},
        {"type": "identify", "userId": "bob", "traits": {"email": "bob@example.com"}},
    ]
    (tmp_path / "d").write_text("performed Viewed")
    timed = [{**line, "timestamp": "2026-01-01T00:00:00Z", "messageId": str(i)} for i, line in enumerate(lines)]
    (tmp_path / "e").write_text("\n".join(map(json.dumps, timed)))
    files = ["--definition", str(tmp_path / "d"), "--events", str(tmp_path / "e")]
    return main.main(["audience", "eval", *files, "--at", "2026-01-02", *more])


@pytest.mark.parametrize("identifier", ["user_id:bob", "email:bob@example.com", "email: BOB@Example.com"])
def test_somebody_who_is_out_is_explained_by_an_identifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], identifier: str
) -> None:
    assert over_messages(tmp_path, "--explain", identifier, "--json") == 0
    explanation = json.loads(capsys.readouterr().out)["explanation"]
    assert (explanation["member"], explanation["condition"]["text"]) == (False, "performed Viewed")
    assert explanation["missing"] == ["must hold: performed Viewed (found: never performed Viewed)."]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("user_id:bbo", "such as 'user_id:bob'"),
        ("?", "such as 'email:bob@example.com', 'user_id:ann', 'user_id:bob' or 2 more"),
    ],
)
def test_the_error_names_who_could_be_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    assert over_messages(tmp_path, "--explain", name) == 2
    error = capsys.readouterr().err
    assert f"there is no profile {name!r} in the events; name a profile, or an identifier as namespace:value" in error
    assert told in error


def test_an_identifier_of_several_people_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"profile": p, "userId": "same", "timestamp": "2026-01-01", "event": "A"} for p in ("ann", "bob")]
    (tmp_path / "d").write_text("performed A")
    (tmp_path / "e").write_text("\n".join(json.dumps({**line, "messageId": str(i)}) for i, line in enumerate(lines)))
    files = ["--definition", str(tmp_path / "d"), "--events", str(tmp_path / "e"), "--explain", "user_id:same"]
    assert main.main(["audience", "eval", *files]) == 2
    assert "2 profiles have 'user_id:same': name one of 'ann', 'bob'" in capsys.readouterr().err


def test_what_no_event_has_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traits = {"spent-30d": {"event": "Purchased", "compute": {"sum": "valeu"}}}
    assert run(tmp_path, "--computed-traits", str(tmp_path / "c.json"), "--json", traits=traits) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["members"] == []
    assert printed.err == "warning: 'Purchased' has no property 'valeu'; did you mean 'value'?\n"


def test_definitions_are_checked_without_a_platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fine.json").write_text('{"where": {"event": "Purchased", "count": {"gte": 0}}}')
    (tmp_path / "fine.txt").write_text("performed Purchased in last 30d")
    (tmp_path / "wrong.txt").write_text("performed Purchased in last 30d\nand not performed Purchased in last 60d")
    fine, text, wrong = (str(tmp_path / name) for name in ("fine.json", "fine.txt", "wrong.txt"))
    assert main.main(["audience", "check", fine, text, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["definitions"]
    assert (first["file"], first["error"], second["warnings"]) == (fine, "", [])
    assert "the condition holds for everybody" in first["warnings"][0]
    assert second["text"] == "performed Purchased in last 30d"
    assert main.main(["audience", "check", text, wrong]) == 1
    shown = capsys.readouterr().out
    assert "line 2, column 9: not: cannot hold together" in shown and "performed Purchased in last 30d" in shown
    assert main.main(["audience", "check", str(tmp_path / "gone")]) == 2
