"""The command line on a running platform: configuration as code, sending, reading, and what it says when refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from headrace_sdk import ENTRY_POINT_GROUP
from tests.support.up import Run, Up

CONFIGURATION = """
kind: Sync
id: cli-forward
type: forwarding
destination: cli-hook
event_names: [Cli bought]
---
kind: Destination
id: cli-hook
connector: webhook
settings: {url: "https://hooks.example/${HOOK_PATH}", signing_secret: "${HOOK_SECRET}"}
paused: true
---
kind: Audience
id: cli-gold-buyers
active: true
definition: {where: {all: [{audience: cli-buyers}, {trait: plan, eq: gold}]}}
---
kind: Audience
id: cli-buyers
display_name: Bought for $${money}
active: true
definition: {where: {event: Cli bought, within: 30d, count: {gte: 2}}}
---
kind: Source
id: cli-crm
type: webhook
mapping: {event: type, identifiers: {user_id: person.id}}
"""
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands that find the variables of CONFIGURATION."""
    monkeypatch.setenv("HOOK_PATH", "a")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    return run


def results(output: str) -> dict[str, str]:
    return {line.split()[2]: line.split()[0] for line in output.splitlines()}


def asked(run: Run, *arguments: str) -> Any:
    status, output, error = run(*arguments, "--json")
    assert status == 0, error
    return json.loads(output)


def eventually(run: Run, arguments: list[str], right: Callable[[Any], bool]) -> Any:
    """What is answered once it is right; what is not there yet may come."""
    deadline = time.monotonic() + 60
    while True:
        status, output, error = run(*arguments, "--json")
        if status == 0 and right(found := json.loads(output)):
            return found
        assert time.monotonic() < deadline, output or error
        time.sleep(0.2)


def test_configuration_is_applied_compared_and_exported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cli.yaml"
    file.write_text(CONFIGURATION)
    names = {"cli-crm", "cli-buyers", "cli-gold-buyers", "cli-hook", "cli-forward"}

    status, output, _ = run("diff", "-f", str(file))
    assert status == 1
    assert output.count("+ ") == 5
    assert SECRET not in output
    status, output, _ = run("apply", "-f", str(file), "--dry-run")
    assert (status, output.count("+ ")) == (0, 5)
    assert run("sources", "get", "cli-crm")[0] == 1, "a dry run makes nothing"

    status, output, error = run("apply", "-f", str(file))
    assert (status, results(output)) == (0, dict.fromkeys(names, "created")), error
    status, output, _ = run("apply", "-f", str(file))
    assert (status, results(output)) == (0, dict.fromkeys(names, "unchanged"))
    status, output, _ = run("diff", "-f", str(file))
    assert status == 0, output
    assert asked(run, "audiences", "get", "cli-buyers")["display_name"] == "Bought for ${money}"
    assert asked(run, "destinations", "get", "cli-hook")["settings"]["signing_secret"] == "********"

    status, exported, _ = run("export")
    assert status == 0
    assert SECRET not in exported
    again = tmp_path / "exported.yaml"
    again.write_text(exported)
    status, output, _ = run("diff", "-f", str(again))
    assert status == 0, output
    status, output, _ = run("apply", "-f", str(again))
    assert status == 0
    assert set(results(output).values()) == {"unchanged"}
    assert names <= results(output).keys()

    # What was switched by hand stays, because the file does not speak of it; what it speaks of is put right.
    assert run("syncs", "update", "cli-forward", "--pause")[0] == 0
    assert run("destinations", "update", "cli-hook", "--resume")[0] == 0
    monkeypatch.setenv("HOOK_PATH", "b")
    file.write_text(CONFIGURATION.replace("within: 30d", "within: 10d"))
    status, output, _ = run("diff", "-f", str(file))
    assert status == 1
    assert 'definition.where.within: "30d" -> "10d"' in output
    assert 'settings.url: "https://hooks.example/a" -> "https://hooks.example/b"' in output
    assert "paused: false -> true" in output
    status, output, _ = run("apply", "-f", str(file))
    assert results(output) == {**dict.fromkeys(names, "unchanged"), "cli-buyers": "changed", "cli-hook": "changed"}
    assert asked(run, "syncs", "get", "cli-forward")["paused"] is True
    assert asked(run, "destinations", "get", "cli-hook")["state"] == "paused"

    # A new secret is noticed, though the platform never shows it.
    monkeypatch.setenv("HOOK_SECRET", SECRET.replace("MDEy", "MDEz"))
    _, output, _ = run("apply", "-f", str(file))
    assert results(output) == {**dict.fromkeys(names, "unchanged"), "cli-hook": "changed"}


def test_nothing_is_changed_when_anything_is_wrong(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "kind: Source\nid: cli-first\ntype: http\n---\n"
        "kind: Sync\nid: cli-wrong\ntype: list\ndestination: cli-nowhere\naudience: cli-nobody\n---\n"
        "kind: Destination\nid: cli-typo\nconnector: webhok\n"
    )
    status, output, error = run("apply", "-f", str(file))
    assert (status, output) == (2, "")
    assert error.splitlines() == [
        "error: nothing was changed:",
        f"{file}:8: there is no Destination 'cli-nowhere', in the files or on the platform",
        f"{file}:9: there is no Audience 'cli-nobody', in the files or on the platform",
        f"{file}:13: there is no such connector; there are: "
        + ", ".join(sorted(entry_points(group=ENTRY_POINT_GROUP).names)),
    ]
    assert run("sources", "get", "cli-first")[0] == 1


def test_what_only_the_platform_can_refuse_names_the_resource_and_applying_goes_on_later(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "refused.yaml"
    text = "kind: Source\nid: cli-before\ntype: http\n---\nkind: Destination\nid: cli-bad\nconnector: webhook\n"
    file.write_text(text + "settings: {url: 'ftp://nowhere'}\n")
    status, output, error = run("apply", "-f", str(file))
    assert (status, results(output)) == (1, {"cli-before": "created"})
    assert error.startswith(f"error: {file}:5: Destination cli-bad: destination.settings.url: ")
    file.write_text(text + "settings: {url: 'https://somewhere.example'}\n")
    status, output, _ = run("apply", "-f", str(file))
    assert results(output) == {"cli-before": "unchanged", "cli-bad": "created"}


def test_a_file_is_sent_and_sending_it_again_makes_nothing_twice(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    lines = [{"type": "identify", "userId": "cli-u", "traits": {"email": "Cli@Example.com"}, "messageId": "cli-m"}]
    lines += [{"type": "track", "userId": "cli-u", "event": "Cli seen", "properties": {"n": n}} for n in range(250)]
    text = [json.dumps(line) for line in lines]
    text[100:100] = ["{", "", json.dumps({"type": "track", "userId": "cli-u", "event": ""})]
    file.write_text("\n".join(text) + "\n")
    for _ in range(2):
        status, output, _ = run("send", str(file), "--batch", "40", "--json")
        report = json.loads(output)
        assert status == 1
        assert report["accepted"] == 251
        assert [(r["line"], r["code"]) for r in report["rejected"]] == [(101, "malformed"), (103, "missing_name")]

    profile = eventually(run, ["profiles", "lookup", "email", "cli@example.com"], lambda p: bool(p["parts"]))
    id = profile["name"].rpartition("/")[2]
    events = eventually(run, ["profiles", "events", id, "--all"], lambda e: len(e) >= 251)
    assert len(events) == 251
    assert len(asked(run, "profiles", "events", id, "--event", "Cli seen", "--limit", "7")) == 7
    status, output, _ = run("profiles", "events", id, "--limit", "3")
    assert status == 0
    assert output.splitlines()[0].split() == ["TIME", "MESSAGE", "ID", "KIND", "NAME", "SOURCE", "DECISION"]
    status, output, _ = run("profiles", "get", id)
    assert "email:cli@example.com" in output
    steps = asked(run, "events", "journey", "cli-m")["steps"]
    assert [step["stage"] for step in steps][:2] == ["accepted", "resolved"]
    assert any(p["name"] == profile["name"] for p in asked(run, "profiles", "list", "--all"))


def test_a_wrong_write_key_ends_sending_at_once(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text('{"type": "track", "userId": "u", "event": "X"}\n')
    status, _, error = run("send", str(file), "--write-key", "wrong")
    assert status == 1
    assert error.startswith("error: the write key was refused: ")
    status, _, error = run("send", str(file), "--url", "http://127.0.0.1:1", "--give-up", "0")
    assert status == 1
    assert error.startswith("error: cannot reach http://127.0.0.1:1: ")


def test_rejected_messages_are_listed_and_repaired(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.ndjson"
    file.write_text('{"type": "track", "userId": "cli-r", "event": "", "messageId": "cli-repair"}\n')
    assert run("send", str(file))[0] == 1
    (record,) = [m for m in asked(run, "sources", "rejected", "--all") if m["message_id"] == "cli-repair"]
    assert record["code"] == "missing_name"
    assert run("sources", "repair", record["id"])[0] == 1, "sent again as it is, it is refused again"
    body = tmp_path / "body.json"
    body.write_text('{"type": "track", "userId": "cli-r", "event": "Repaired", "messageId": "cli-repair"}')
    status, output, error = run("sources", "repair", record["id"], "--body", str(body))
    assert status == 0, output + error
    assert not [m for m in asked(run, "sources", "rejected", "--all") if m["message_id"] == "cli-repair"]


def test_audiences_of_groups_follow_and_are_explained(run: Run, tmp_path: Path) -> None:
    wanted = "trait plan = pro and any member (performed Joined) with of groups"
    asked(run, "audiences", "create", "cli-accounts", "--definition", wanted)
    assert run("audiences", "activate", "cli-accounts")[0] == 0
    eventually(run, ["audiences", "get", "cli-accounts"], lambda a: a["state"] == "active")
    file = tmp_path / "group.ndjson"
    calls = [
        {"type": "group", "userId": "cli-g", "groupId": "cli-corp", "traits": {"plan": "pro"}},
        {"type": "track", "userId": "cli-g", "event": "Joined"},
    ]
    file.write_text("".join(f"{json.dumps(call)}\n" for call in calls))
    assert run("send", str(file))[0] == 0
    eventually(run, ["audiences", "members", "cli-accounts"], lambda members: len(members) == 1)
    found = asked(run, "audiences", "explain", "cli-accounts", "cli-corp")
    assert (found["profile_id"], found["member"], found["stored_member"]) == ("cli-corp", True, True)
    assert found["condition"]["parts"][1]["members_holding"] in (1, "1")
    status, output, error = run("audiences", "explain", "cli-accounts", "cli-corp")
    assert status == 0, error
    for said in (
        "cli-corp is in",
        "1 of 1 member with performed Joined (one is enough).",
        "stored: in, as of ",
        "such as ",
    ):
        assert said in output
    asked(run, "audiences", "create", "cli-joined", "--definition", "performed Joined")
    found = asked(run, "audiences", "explain", "cli-joined", "user_id:cli-g")
    assert (found["member"], found["condition"]["counted"]) in ((True, 1), (True, "1"))
    assert found["missing"] == ["must no longer hold: performed Joined (found: 1 Joined)."]
    status, _, error = run("audiences", "explain", "cli-joined", "user_id:cli-nobody")
    assert status == 1 and "does not exist" in error
    assert run("audiences", "delete", "cli-joined")[0] == 0
    asked(run, "audiences", "create", "cli-frozen", "--definition", "performed Joined with kind static")
    assert run("audiences", "activate", "cli-frozen")[0] == 0
    eventually(run, ["audiences", "get", "cli-frozen"], lambda a: a["state"] == "active" and a["size"] == 1)
    assert run("audiences", "pause", "cli-frozen")[0] == 0
    status, output, error = run("audiences", "explain", "cli-frozen", "user_id:cli-g")
    assert status == 0, error
    first, state, stored, summary = output.splitlines()[:4]
    assert " is in since " in first and ", until " not in first
    assert state == "the audience is paused" and stored.startswith("stored: in, as of ")
    assert summary.startswith("Stored: in, as of ") and "by the definition now: in. It is paused" in summary
    assert run("audiences", "archive", "cli-frozen")[0] == 0
    eventually(run, ["audiences", "get", "cli-frozen"], lambda a: a["size"] == 0)
    output = run("audiences", "explain", "cli-frozen", "user_id:cli-g")[1]
    assert " is out as stored; by the definition in" in output and "the audience is archived\n" in output
    assert run("audiences", "delete", "cli-frozen")[0] == 0
    status, _, error = run("audiences", "explain", "cli-accounts", "nobody")
    assert status == 1 and "groups/nobody does not exist" in error


def test_audiences_from_the_command_line(run: Run) -> None:
    made = asked(run, "audiences", "create", "cli-made", "--definition", '{"where": {"event": "X"}}')
    assert (made["state"], made["definition"]) == ("draft", {"where": {"event": "X"}})
    status, _, error = run("audiences", "create", "cli-made", "--definition", '{"where": {"event": "X"}}')
    assert (status, error) == (1, f"error: {made['name']} exists already\n")
    status, _, error = run("audiences", "create", "cli-wrong", "--definition", '{"where": {"evnt": "X"}}')
    assert status == 1
    assert error.startswith("error: audience.definition.where: unknown key 'evnt'")
    assert run("audiences", "activate", "cli-made")[0] == 0
    eventually(run, ["audiences", "get", "cli-made"], lambda a: a["state"] == "active")
    assert asked(run, "audiences", "verify", "cli-made")["mismatched_profile_ids"] == []
    repaired = asked(run, "audiences", "verify", "cli-made", "--repair")
    assert (repaired["mismatch_count"], repaired["corrected_count"]) == (0, 0)
    assert asked(run, "audiences", "preview", "--definition", '{"where": {"event": "Nobody did"}}')["size"] == 0
    assert "performed X" in run("audiences", "get", "cli-made")[1]
    assert asked(run, "audiences", "create", "cli-text", "--definition", "performed Y in last 7d")["size"] == 0
    assert asked(run, "audiences", "overlap", "cli-made", "cli-text")["union_size"] == 0
    assert len(asked(run, "audiences", "suggested")) >= 5
    assert asked(run, "audiences", "readiness", "cli-made")["sampled"] == 0
    assert asked(run, "audiences", "history", "cli-made", "--days", "3")[-1]["size"] == 0
    status, _, error = run("audiences", "explain", "cli-made", "nobody")
    assert status == 1 and "does not exist" in error
    assert run("audiences", "delete", "cli-text")[0] == 0
    other = ("audiences", "update", "cli-made", "--definition", "performed Z")
    dry = asked(run, *other, "--dry-run")
    assert (dry["enter"], dry["leave"], dry["stay"], dry["needs_confirmation"]) == (0, 0, 0, False)
    assert asked(run, *other)["pending_version"]["definition"] == {"where": {"event": "Z"}}
    eventually(run, ["audiences", "get", "cli-made"], lambda a: a["definition"] == {"where": {"event": "Z"}})
    told = run("audiences", "update", "cli-made", "--definition", "performed Z or performed Y")[1]
    assert "0 enter, 0 leave and 0 stay; once it is computed it takes effect by itself.\n" in told
    eventually(run, ["audiences", "get", "cli-made"], lambda a: a["pending_version"] is None)
    for command in ("confirm", "discard"):
        status, _, error = run("audiences", command, "cli-made")
        assert status == 1 and "no new version" in error
    assert run("audiences", "pause", "cli-made")[1].endswith("cli-made is paused\n")
    changed = asked(run, "audiences", "update", "cli-made", "--display-name", "New")
    assert changed["display_name"] == "New"
    assert asked(run, "audiences", "members", "cli-made") == []
    status, _, error = run("audiences", "watch", "cli-nobody")
    assert status == 1 and "does not exist" in error
    status, _, error = run("audiences", "refresh", "cli-made")
    assert status == 1 and "Only an active audience can be refreshed" in error
    assert run("audiences", "create", "cli-daily", "--definition", "performed Y with refresh 1d")[0] == 0
    assert run("audiences", "activate", "cli-daily")[0] == 0
    daily = eventually(run, ["audiences", "get", "cli-daily"], lambda a: a["state"] == "active")
    assert daily["refresh_time"] < daily["next_refresh_time"]
    assert run("audiences", "refresh", "cli-daily")[1].endswith("cli-daily is being refreshed\n")
    assert run("audiences", "archive", "cli-daily")[1].endswith("cli-daily is archived\n")
    assert daily["name"] not in {a["name"] for a in asked(run, "audiences", "list")}
    assert daily["name"] in {a["name"] for a in asked(run, "audiences", "list", "--archived")}
    assert run("audiences", "delete", "cli-daily")[0] == 0
    assert run("audiences", "delete", "cli-made")[0] == 0
    assert run("audiences", "get", "cli-made")[0] == 1


def test_computed_traits_from_the_command_line(run: Run, tmp_path: Path) -> None:
    spent = {"event": "Cli bought", "within": "30d", "compute": {"sum": "total"}}
    made = asked(run, "computed-traits", "create", "cli-spent", "--definition", json.dumps(spent))
    assert (made["display_name"], made["definition"]) == ("cli-spent", spent)
    status, _, error = run("computed-traits", "create", "cli-wrong", "--definition", '{"event": "X", "compute": "sum"}')
    assert status == 1
    assert error.startswith('error: computed_trait.definition.compute: must be "count" or an object')
    eventually(run, ["computed-traits", "get", "cli-spent"], lambda t: t["state"] == "ready")
    file = tmp_path / "bought.ndjson"
    bought = '{"type": "track", "userId": "cli-c", "event": "Cli bought", "properties": {"total": %s}}\n'
    file.write_text("".join(bought % total for total in (0.1, 0.2)))
    assert run("send", str(file))[0] == 0
    lookup = ["profiles", "lookup", "user_id", "cli-c"]
    profile = eventually(run, lookup, lambda p: [c["value"] for c in p["computed_traits"]] == [0.3])
    verified = asked(run, "computed-traits", "verify", "cli-spent", "--profile", profile["name"])
    assert (verified["kept"], verified["computed"]) == (0.3, 0.3)
    assert asked(run, "computed-traits", "update", "cli-spent", "--display-name", "New")["display_name"] == "New"
    assert made["name"] in [t["name"] for t in asked(run, "computed-traits", "list")]
    typo = tmp_path / "typo.yaml"
    typo.write_text("kind: Audience\nid: cli-typo\ndefinition: {where: {event: Cli bougth}}\n")
    assert run("apply", "-f", str(typo))[0] == 0
    changed = ("audiences", "update", "cli-typo", "--definition", 'performed "Cli bougt"', "--dry-run")
    # Nothing is said of names before the archive has events; on a busy machine it may not be found out in time.
    warned = time.monotonic() + 60
    while not run(*changed)[2].startswith("warning: "):
        assert time.monotonic() < warned, "a warning of the unknown name"
        time.sleep(0.2)
    assert run("audiences", "delete", "cli-typo")[0] == 0
    yaml = tmp_path / "computed.yaml"
    yaml.write_text("kind: ComputedTrait\nid: cli-spent\ndefinition: {event: Cli bought, compute: count}\n")
    assert "definition.within" in run("diff", "-f", str(yaml))[1]
    assert run("apply", "-f", str(yaml))[0] == 0
    assert run("diff", "-f", str(yaml))[0] == 0
    assert "compute: count" in run("export", "--kind", "ComputedTrait")[1]
    assert run("computed-traits", "delete", "cli-spent")[0] == 0
    assert run("computed-traits", "get", "cli-spent")[0] == 1


def test_a_destination_is_tried_with_sample_events(run: Run, tmp_path: Path) -> None:
    (tmp_path / "events.ndjson").write_text('{"event": "A", "messageId": "m1", "userId": "u"}\n\n')
    (tmp_path / "settings.json").write_text(json.dumps({"script": "function send(event) {\n  return event.a.b;\n}"}))
    events, settings = str(tmp_path / "events.ndjson"), f"@{tmp_path / 'settings.json'}"
    tried = asked(
        run, "destinations", "test", events, "--connector", "webhook", "--settings", '{"url": "https://a.example"}'
    )  # fmt: skip
    assert [(one["url"], one["message_ids"]) for one in tried["requests"]] == [("https://a.example", ["m1"])]
    status, output, _ = run("destinations", "test", events, "--connector", "javascript", "--settings", settings)
    assert status == 1 and "line 2, column " in output
    status, _, error = run("destinations", "test", events)
    assert status == 2 and "either --destination or --connector" in error


def test_sources_destinations_and_syncs_from_the_command_line(run: Run) -> None:
    source = asked(run, "sources", "create", "cli-web", "--kind", "website", "--origin", "https://a.example")
    assert source["write_key"]
    assert asked(run, "sources", "update", "cli-web", "--any-origin", "--disable")["allowed_origins"] == []
    assert asked(run, "sources", "get", "cli-web")["disabled"] is True
    assert asked(run, "sources", "update", "cli-web", "--enable")["disabled"] is False
    assert asked(run, "sources", "messages", "cli-web") == []

    assert {c["name"] for c in asked(run, "destinations", "connectors")} >= {"webhook", "meta-audience"}
    hook = asked(
        run, "destinations", "create", "cli-hand", "--connector", "webhook", "--settings", '{"url": "https://a.example"}'
    )  # fmt: skip
    assert hook["state"] == "active"
    assert asked(run, "destinations", "check-mapping", "cli-hand")["problem"] == ""
    made = asked(run, "syncs", "create", "cli-hand", "--kind", "forwarding", "--destination", "cli-hand", "--paused")
    assert (made["kind"], made["paused"]) == ("forwarding", True)
    assert asked(run, "syncs", "update", "cli-hand", "--event", "A", "--event", "B")["event_names"] == ["A", "B"]
    assert asked(run, "syncs", "update", "cli-hand", "--all-events")["event_names"] == []
    assert asked(run, "syncs", "ledger", "cli-hand")["unaccounted"] == 0
    assert asked(run, "syncs", "deliveries", "cli-hand", "--state", "failed") == []
    assert asked(run, "syncs", "replay", "cli-hand") == {"replayed": 0}
    assert run("syncs", "run", "cli-hand")[2] == "error: Only LIST syncs have passes\n"
    assert "say whose events are looked at" in run("syncs", "dry-run", "cli-hand")[2]
    assert "event unknown does not exist" in run("syncs", "dry-run", "cli-hand", "--message", "unknown")[2]
    status, _, error = run("destinations", "delete", "cli-hand")
    assert status == 1
    assert "is used by" in error
    assert run("audiences", "create", "cli-synced", "--definition", "performed Y")[0] == 0
    of_audience = ("--kind", "event", "--destination", "cli-hand", "--audience", "cli-synced", "--paused")
    made = asked(run, "syncs", "create", "cli-goes-by", *of_audience)
    for command in ("delete", "archive"):
        status, _, error = run("audiences", command, "cli-synced")
        assert status == 1 and f"is used by {made['name']}" in error
    assert run("audiences", "archive", "cli-synced", "--force")[0] == 0
    assert run("audiences", "delete", "cli-synced", "--force")[0] == 0
    for kind, id in [
        ("syncs", "cli-goes-by"),
        ("syncs", "cli-hand"),
        ("destinations", "cli-hand"),
        ("sources", "cli-web"),
    ]:
        assert run(kind, "delete", id)[0] == 0
        assert run(kind, "get", id)[0] == 1
        assert id not in run(kind, "list", "--all")[1]


def test_identity_rules_are_tried_and_set_and_applied_to_everything(run: Run, tmp_path: Path) -> None:
    before = asked(run, "identity", "rules", "get")
    file = tmp_path / "rules.json"
    file.write_text('{"namespaces": [{"name": "user_id"}, {"name": "email", "limit": 0}]}')
    status, _, error = run("identity", "rules", "preview", str(file))
    assert (status, error) == (
        1,
        "error: rules.namespaces[1].limit: must be a whole number from 1 to 1000\n",
    )
    file.write_text('{"namespaces": [{"name": "user_id"}, {"name": "email", "limit": 1}]}')
    status, shown, _ = run("identity", "rules", "preview", str(file))
    assert status == 0
    assert "preview, done" in shown
    assert asked(run, "identity", "rules", "get") == before
    stored = asked(run, "identity", "rules", "set", str(file), "--etag", before["etag"])
    assert stored["rules"]["namespaces"][1] == {"name": "email", "limit": 1, "allow_short": False}
    assert run("identity", "rules", "set", str(file), "--etag", before["etag"])[0] == 1
    done = asked(run, "identity", "rebuild", "--wait")
    assert (done["state"], done["rules_version"]) == ("done", stored["version"])
    file.write_text(json.dumps(before["rules"]))
    started = asked(run, "identity", "rebuild", "--rules", str(file))
    assert asked(run, "identity", "rebuilds", "get", started["name"], "--wait")["state"] == "done"
    listed = asked(run, "identity", "rebuilds", "list")
    assert [r["preview"] for r in listed[:3]] == [False, False, True]
    assert run("identity", "rebuilds", "cancel", started["name"])[1].endswith("is done\n")
    assert asked(run, "identity", "alarms") == []
    # The same as a file of configuration; what it leaves out has its default.
    described = tmp_path / "rules.yaml"
    described.write_text("kind: IdentityRules\nid: workspace\nrules: {alarm_people: 19}\n")
    assert run("diff", "-f", str(described))[0] == 1
    for action in ("changed", "unchanged"):
        assert run("apply", "-f", str(described))[1].startswith(action)
    (exported,) = asked(run, "export", "--kind", "IdentityRules")
    assert exported["rules"]["alarm_people"] == 19
    described.write_text("kind: IdentityRules\nid: mine\nrules: {alarm_peple: 19}\n")
    status, _, error = run("apply", "-f", str(described))
    assert status == 2
    assert "id must be workspace" in error
    assert run("identity", "rules", "set", str(file))[0] == 0


def test_tokens_are_made_used_and_revoked(run: Run, up: Up) -> None:
    made = asked(run, "tokens", "create", "cli reader", "--scope", "profiles:read")
    status, _, error = run("audiences", "list", "--token", made["secret"])
    assert status == 1
    assert error == (
        "error: The credentials lack the scope 'audiences:read': make a token with it by `headrace tokens create`\n"
    )
    assert run("profiles", "list", "--token", made["secret"])[0] == 0
    status, _, error = run("profiles", "list", "--token", made["secret"], "--workspace", "another")
    assert (status, error) == (1, "error: The credentials are not for workspace 'another'\n")
    assert run("tokens", "revoke", made["name"].rpartition("/")[2])[0] == 0
    assert next(t for t in asked(run, "tokens", "list", "--all") if t["name"] == made["name"])["revoke_time"]
    status, _, error = run("tokens", "list", "--token", made["secret"])
    assert (status, error) == (
        1,
        "error: The token is unknown or revoked: pass a token by --token, HEADRACE_API_TOKEN or --ready-file\n",
    )
    assert [w["name"] for w in asked(run, "workspaces", "list")] == [f"workspaces/{up.ready['workspace']}"]
    assert asked(run, "workspaces", "get")["name"] == f"workspaces/{up.ready['workspace']}"


def test_operators_make_workspaces_with_the_service_token(run: Run, up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = json.loads((up.folder / "data" / "secrets.json").read_text())
    monkeypatch.setenv("HEADRACE_SERVICE_TOKEN", secrets["service_token"])
    made = asked(run, "admin", "workspace", "create", "cli-second", "--display-name", "Second")
    assert (made["name"], made["display_name"]) == ("workspaces/cli-second", "Second")
    assert asked(run, "audiences", "list", "--token", made["api_token"], "--workspace", "cli-second") == []
    assert run("audiences", "list", "--token", made["api_token"])[0] == 1
    assert "workspaces/cli-second" in run("admin", "workspace", "list")[1]


def test_operators_compare_all_audiences(run: Run) -> None:
    asked(run, "audiences", "create", "cli-all", "--definition", '{"where": {"not": {"event": "Never"}}}')
    assert run("audiences", "activate", "cli-all")[0] == 0
    eventually(run, ["audiences", "get", "cli-all"], lambda a: a["state"] == "active")
    # Those of which nothing can be said hold up no other, and count for no difference.
    texts = {"cli-alike": "performed Never with kind static", "cli-reader": "in audience cli-alike with kind static"}
    for id, text in texts.items():
        asked(run, "audiences", "create", id, "--definition", text)
        assert run("audiences", "activate", id)[0] == 0
        eventually(run, ["audiences", "get", id], lambda a: a["state"] == "active")
    rows = {row["audience"].rpartition("/")[2]: row for row in asked(run, "admin", "verify")}
    assert rows["cli-all"]["same"] is True and rows["cli-alike"]["same"] is True
    assert rows["cli-reader"]["same"] is None and "goes by its stored members" in rows["cli-reader"]["not_compared"]
    assert "goes by its stored members" in run("admin", "verify")[1]
    for made in ("cli-all", "cli-reader", "cli-alike"):
        assert run("audiences", "delete", made)[0] == 0
