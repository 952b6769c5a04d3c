"""The command line itself: help, exit statuses, sentences on standard error, where the platform is looked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.api.audience.v1.audience_pb2 import Audience, AudienceState
from headrace.api.identity.v1.profile_pb2 import Trait
from headrace.api.ingest.v1.source_service_pb2 import SourceMessage
from headrace.cli import main
from headrace.cli.connection import resolve
from headrace.cli.output import cell, plain_of, table
from headrace.cli.problems import UsageProblem
from headrace.cli.sending import MAX_BATCH_BYTES, Line, Rejected, batches, read_line

DEEP = '{"where": ' + '{"not": ' * 1_200 + '{"event": "A"}' + "}" * 1_201
READY = {
    "ingest_http": "http://127.0.0.1:1",
    "console_http": "http://127.0.0.1:2",
    "grpc": {"ingest": "a:1", "identity": "a:2", "audience": "a:3", "sync": "a:4", "workspace": "a:5"},
    "workspace": "shop",
    "write_key": "wk",
    "api_token": "hr_token",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a platform, and no variable of one."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    path = tmp_path / "ready.json"
    path.write_text(json.dumps(READY))
    return path


def test_every_command_loads_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name, entry in main.COMMANDS.items():
        assert main.main([name, "--help"]) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith(f"Usage: headrace {name}")
        assert shown.err == ""
        assert entry.help.endswith(".")


def test_help_of_the_whole_loads_no_command() -> None:
    code = (
        "import sys\nfrom headrace.cli import main\nstatus = main.main(['--help'])\n"
        "heavy = [m for m in ('grpc', 'pymongo', 'rich', 'yaml', 'aiohttp', 'pydantic', 'numpy') if m in sys.modules]\n"
        "sys.exit(status or (str(heavy) if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    shown = " ".join(done.stdout.split())
    for name, entry in main.COMMANDS.items():
        assert f"{name} {entry.help}" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sorces"], "error: No such command 'sorces'. Did you mean 'sources', 'workspaces'? See `headrace --help`."),
        (["--nope"], "error: No such option: --nope. See `headrace --help`."),
        (["audiences", "get"], "error: Missing argument 'id'. See `headrace audiences get --help`."),
        (["audiences", "list", "--limit", "0"], "error: Invalid value for '--limit'"),
        (["audiences", "list", "--address", "x:1"], "error: no workspace is named: pass --workspace or set HEADRACE_"),
        (["audiences", "list", "--workspace", "w"], "error: the address of audience is not known: start one by "),
        (["audiences", "list", "--ready-file", "no.json"], "error: the ready file no.json does not exist: is"),
        (["audiences", "list", "--address", "audiense=x:1"], "error: --address audiense=x:1: write HOST:PORT or"),
        (["audiences", "update", "a", "--workspace", "w"], "error: nothing to change was given"),
        (["audiences", "create", "a", "--workspace", "w", "--definition", "{"], "error: --definition: no JSON: "),
        (["audiences", "create", "a", "--workspace", "w", "--definition", "@no.json"], "error: no.json: No such "),
        (["apply", "-f", "no.yaml"], "error: no.yaml: No such file or directory"),
        (["send", "no.ndjson"], "error: where to send is not known: pass --url or --ready-file"),
        (["send", "no.ndjson", "--url", "http://x", "--write-key", "k"], "error: no.ndjson: there is no such file"),
        (["send", "no.ndjson", "--url", "x:1", "--write-key", "k"], "error: --url x:1: it must begin with http://"),
        (["admin", "workspace", "list"], "error: this needs the service token: pass --service-token or set HEADRACE_"),
        (["destination", "render", "--plugin", "webhook", "--settings", "s"], "error: give either --events or --m"),
        (["destination", "normalise"], "error: give --plugin, --field and a value, or --file"),
        (["identity", "replay", "no.ndjson"], "error: no.ndjson: No such file or directory"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_told_in_a_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(said), shown.err
    assert shown.err.count("\n") == 1


def test_an_unreachable_platform_is_told_with_its_address(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["profiles", "list", "--ready-file", str(ready), "--address", "identity=127.0.0.1:1"]
    assert main.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: cannot reach identity at 127.0.0.1:1: is the platform running? Else start one by ")


def test_a_group_without_a_command_shows_its_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["audiences"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "activate" in shown.err


def test_a_reader_that_goes_away_is_no_failure_to_speak_of() -> None:
    command = f"{sys.executable} -m headrace.cli.main --help | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith("Usage: headrace")


def test_the_platform_is_found_by_option_then_environment_then_ready_file(ready: Path) -> None:
    found = resolve(ready_file=ready, environment={})
    assert (found.workspace, found.token, found.write_key) == ("shop", "hr_token", "wk")
    assert found.address("sync") == "a:4"
    environment = {
        "HEADRACE_READY_FILE": str(ready),
        "HEADRACE_SYNC_ADDRESS": "b:4",
        "HEADRACE_API_TOKEN": "hr_other",
        "HEADRACE_WORKSPACE": "other",
    }
    found = resolve(environment=environment)
    assert (found.workspace, found.token, found.address("sync"), found.address("audience")) == (
        "other",
        "hr_other",
        "b:4",
        "a:3",
    )
    found = resolve(addresses=["g:1", "sync=c:4"], token="hr_mine", workspace="mine", environment=environment)
    assert (found.workspace, found.token, found.address("sync"), found.address("audience")) == (
        "mine",
        "hr_mine",
        "c:4",
        "g:1",
    )


def test_the_data_folder_of_up_is_found_without_a_word(ready: Path) -> None:
    folder = Path(".headrace")
    folder.mkdir()
    ready.rename(folder / "ready.json")
    assert resolve(environment={}).workspace == "shop"


def test_secrets_are_not_in_the_form_for_logs(ready: Path) -> None:
    shown = repr(resolve(ready_file=ready, environment={}))
    assert "hr_token" not in shown
    assert "wk" not in shown


@pytest.mark.parametrize("content", ["", "[]", "{", '{"grpc": 3}', '{"workspace": null}', "\udcff"])
def test_a_damaged_ready_file_is_named(ready: Path, content: str) -> None:
    ready.write_text(content, errors="surrogateescape")
    with pytest.raises(UsageProblem, match=r"ready\.json is no ready file of `headrace up`"):
        resolve(ready_file=ready, environment={})


def test_messages_are_shown_as_plain_values() -> None:
    audience = Audience(
        name="workspaces/w/audiences/a",
        definition='{"where": {"event": "X"}}',
        state=AudienceState.AUDIENCE_STATE_ACTIVE,
        size=2**53 + 1,
    )
    audience.create_time.FromJsonString("2026-01-02T03:04:05Z")
    plain = plain_of(audience)
    assert plain["state"] == "active"
    assert plain["size"] == 2**53 + 1
    assert plain["definition"] == {"where": {"event": "X"}}
    assert plain["create_time"] == "2026-01-02T03:04:05Z"
    assert plain["update_time"] is None
    assert plain_of(Trait(name="n", value=b'{"a": [1]}'))["value"] == {"a": [1]}
    assert plain_of(SourceMessage(body=b'{"a": 1}'))["body"] == '{"a": 1}'
    assert plain_of(SourceMessage(body=b"\xff"))["body"] == "/w=="


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "yes"), (0, "0"), (["a", "b"], "a, b"), ({"a": 1}, '{"a": 1}'), ("a\n\x1b[31mb", "a  [31mb")],
)
def test_a_cell_is_one_line_without_control_characters(value: Any, text: str) -> None:
    assert cell(value) == text


def test_tables_cut_nothing() -> None:
    assert table(["A", "LONGER"], [["x" * 300, "y"]]) == f"A{' ' * 301}LONGER\n{'x' * 300}  y"


def test_lines_get_the_same_message_ids_each_time() -> None:
    text = b'{"type": "track", "event": "X", "userId": "u"}'
    first, again, elsewhere = (read_line(n, text, "a.ndjson") for n in (1, 1, 2))
    other_file = read_line(1, text, "b.ndjson")
    assert isinstance(first, Line)
    assert first == again
    assert isinstance(elsewhere, Line)
    assert isinstance(other_file, Line)
    assert len({first.message_id, elsewhere.message_id, other_file.message_id}) == 3
    assert json.loads(first.raw)["messageId"] == first.message_id
    given = read_line(1, b'{"messageId": "m"}', "a.ndjson")
    assert given == Line(1, "m", b'{"messageId": "m"}')


@pytest.mark.parametrize("text", [b"{", b"[]", b"12", b"\xff", b'{"a": ' * 5000])
def test_lines_that_are_no_messages_are_rejected_here(text: bytes) -> None:
    rejected = read_line(7, text, "a")
    assert isinstance(rejected, Rejected)
    assert rejected.line == 7


def test_batches_keep_to_both_limits() -> None:
    lines = [Line(n, str(n), b"x" * size) for n, size in enumerate([10] * 7 + [300_000] * 3 + [900_000] + [10] * 2)]
    made = list(batches(lines, 5))
    assert [line for batch in made for line in batch] == lines
    assert all(len(batch) <= 5 for batch in made)
    assert all(len(batch) == 1 or sum(len(line.raw) for line in batch) <= MAX_BATCH_BYTES for batch in made)


@pytest.mark.parametrize("command", ["preview", "create"])
@pytest.mark.parametrize("from_file", [False, True])
def test_a_definition_that_is_nested_too_deep_is_refused_by_its_place(
    command: str, from_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deep.json").write_text(DEEP)
    (tmp_path / "ready.json").write_text(json.dumps(READY))
    given = f"@{tmp_path / 'deep.json'}" if from_file else DEEP
    named = ["deep"] if command == "create" else []
    arguments = ["audiences", command, *named, "--definition", given, "--ready-file", str(tmp_path / "ready.json")]
    assert main.main(arguments) == 2
    said = capsys.readouterr().err
    assert "--definition: is nested too deep from character" in said and "defect" not in said
