"""What changes whom an audience means asks first: an edit, by whatever way, and a computed trait that it names."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.up import Run, Up

BUYERS = 120
"""More than may move without being confirmed, by the settings that the platform has by itself."""


@pytest.fixture(scope="module")
def bought(up: Up, tmp_path_factory: pytest.TempPathFactory) -> None:
    """So many people bought something, and one has looked at something."""
    events = [{"type": "track", "userId": f"change-{i}", "event": "Change bought"} for i in range(BUYERS)]
    events.append({"type": "track", "userId": "change-viewer", "event": "Change viewed"})
    file: Path = tmp_path_factory.mktemp("changes") / "events.ndjson"
    file.write_text("".join(f"{json.dumps(e)}\n" for e in events))
    result = up.headrace("send", str(file))
    assert result.returncode == 0, result.stderr


def done(run: Run, *arguments: str) -> str:
    status, output, error = run("audiences", *arguments)
    assert status == 0, error
    return output


def found(run: Run, audience_id: str) -> Any:
    return json.loads(done(run, "get", audience_id, "--json"))


def eventually(run: Run, audience_id: str, right: Callable[[Any], bool]) -> Any:
    """The audience once it is right."""
    deadline = time.monotonic() + 90
    while not right(audience := found(run, audience_id)):
        assert time.monotonic() < deadline, audience
        time.sleep(0.3)
    return audience


def waits(audience: Any) -> bool:
    return bool(audience["pending_version"] and audience["pending_version"]["needs_confirmation"])


def test_an_edit_asks_whether_it_was_paused_meanwhile_or_not(run: Run, bought: None) -> None:
    made = done(run, "create", "change-buyers", "--definition", '{"where": {"event": "Change bought"}}')
    assert 'performed "Change bought"' in made, "as `get` shows it"
    done(run, "activate", "change-buyers")
    eventually(run, "change-buyers", lambda a: a["state"] == "active" and a["size"] == BUYERS)
    dry = done(run, "update", "change-buyers", "--definition", 'performed "Change viewed"', "--dry-run", "--json")
    change = json.loads(dry)
    assert (change["enter"], change["leave"], change["stay"], change["needs_confirmation"]) == (1, BUYERS, 0, True)

    done(run, "pause", "change-buyers")
    shown = done(run, "update", "change-buyers", "--definition", 'performed "Change viewed"')
    assert 'performed "Change bought"' in shown and 'performed "Change viewed"' in shown
    assert "its new definition" in done(run, "activate", "change-buyers")
    audience = eventually(run, "change-buyers", waits)
    change = audience["pending_version"]["change"]
    assert (change["enter"], change["leave"], audience["size"]) == (1, BUYERS, BUYERS)
    status, _, error = run("audiences", "confirm", "change-buyers")
    assert status == 2 and "give --yes" in error
    assert f"By the new definition 1 enter, {BUYERS} leave and 0 stay." in error
    assert run("audiences", "confirm", "change-buyers", "--etag", "0")[0] == 1
    assert run("audiences", "update", "change-buyers", "--display-name", "Other", "--etag", "0")[0] == 1
    unchanged = found(run, "change-buyers")
    assert unchanged["pending_version"] and unchanged["display_name"] == "change-buyers"
    assert done(run, "confirm", "change-buyers", "--yes").endswith("has its new definition\n")
    audience = eventually(run, "change-buyers", lambda a: a["size"] == 1)
    assert audience["pending_version"] is None and audience["definition"] == {"where": {"event": "Change viewed"}}

    # The same way back, while it is active, is discarded.
    done(run, "update", "change-buyers", "--definition", 'performed "Change bought"')
    eventually(run, "change-buyers", waits)
    assert done(run, "discard", "change-buyers").endswith("keeps its definition\n")
    assert found(run, "change-buyers")["size"] == 1


def test_files_change_audiences_as_commands_do(run: Run, bought: None, tmp_path: Path) -> None:
    """They say whom an edit moves and what waits, and put away nothing by which syncs go."""
    file = tmp_path / "audience.yaml"

    def apply(audience: str, *options: str, command: str = "apply", wanted: int = 0) -> str:
        file.write_text(f"kind: Audience\nid: change-applied\n{audience}\n")
        status, output, error = run(command, "-f", str(file), *options)
        assert status == wanted, output + error
        return error

    bought_it, viewed_it = (
        f"active: true\ndefinition: {{where: {{event: Change {what}}}}}" for what in ("bought", "viewed")
    )
    apply(bought_it)
    eventually(run, "change-applied", lambda a: a["state"] == "active" and a["size"] == BUYERS)
    moves = f"1 enter, {BUYERS} leave and 0 stay"
    said = apply(viewed_it)
    assert f"Audience change-applied: By the new definition {moves}; once it is computed it waits for" in said
    eventually(run, "change-applied", waits)
    for command in ("diff", "apply"):
        waiting = "its new definition waits for `headrace audiences confirm` or `discard`"
        assert f"Audience change-applied: {waiting}: {moves}\n" in apply(viewed_it, command=command)
    done(run, "discard", "change-applied")

    settings = '{"url": "https://hooks.example"}'
    status, _, error = run("destinations", "create", "change-hook", "--connector", "webhook", "--settings", settings)
    assert status == 0, error
    of_audience = ("--kind", "event", "--destination", "change-hook", "--audience", "change-applied", "--paused")
    assert run("syncs", "create", "change-sync", *of_audience)[0] == 0
    archived = bought_it.replace("active: true", "archived: true")
    for options in ((), ("--dry-run",)):
        error = apply(archived, *options, wanted=1)
        assert "change-applied is used by" in error and "change-sync" in error
    assert found(run, "change-applied")["state"] == "active"
    apply(archived, "--force")
    assert found(run, "change-applied")["state"] == "archived"
    for kind, id in (("syncs", "change-sync"), ("destinations", "change-hook"), ("audiences", "change-applied")):
        assert run(kind, "delete", id)[0] == 0


@pytest.mark.long
def test_a_computed_trait_that_an_audience_names_asks_when_it_changes(run: Run, bought: None) -> None:
    orders = {"event": "Change bought", "compute": "count"}
    status, _, error = run("computed-traits", "create", "change-orders", "--definition", json.dumps(orders))
    assert status == 0, error
    status, _, error = run("audiences", "create", "change-spenders", "--definition", "computed change-order >= 1")
    assert status == 1 and "did you mean 'change-orders'?" in error
    done(run, "create", "change-spenders", "--definition", "computed change-orders >= 1")
    done(run, "activate", "change-spenders")
    eventually(run, "change-spenders", lambda a: a["state"] == "active" and a["size"] == BUYERS)
    assert json.loads(done(run, "verify", "change-spenders", "--json"))["mismatch_count"] == 0

    other = json.dumps({**orders, "event": "Change viewed"})
    status, _, error = run("computed-traits", "update", "change-orders", "--definition", other)
    assert status == 0, error
    audience = eventually(run, "change-spenders", waits)
    change = audience["pending_version"]["change"]
    assert (change["enter"], change["leave"], audience["size"]) == (1, BUYERS, BUYERS)
    assert "waits for `confirm`" in done(run, "activate", "change-spenders"), "it is active; what waits is said"
    done(run, "confirm", "change-spenders", "--etag", audience["etag"])
    eventually(run, "change-spenders", lambda a: a["size"] == 1)
    assert json.loads(done(run, "verify", "change-spenders", "--json"))["mismatch_count"] == 0
