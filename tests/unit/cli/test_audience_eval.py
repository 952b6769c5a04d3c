"""`headrace audience eval` with computed traits."""

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
