"""`headrace identity ...`: why people are who they are; offline, what identity rules make of events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from headrace.cli import identity_links, identity_rules
from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import ndjson_lines, read_text
from headrace.cli.output import Output, cell, plain_of, table, time_of, write, write_json
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import UsageProblem

app = group("Why people are who they are; offline: what identity rules make of events.")

identity_rules.register(app)

_LINK_COLUMNS = ("time", "message_id", "source", "part", "action", "rule", "identifiers", "set aside=set_aside")


identity_links.register(app)


@app.callback()
def _identity() -> None:
    """Why people are who they are; offline: what identity rules make of events."""


@command(app, "graph")
async def graph(
    platform: Platform,
    out: Output,
    profile: Annotated[str, Argument(help="Profile id or resource name; a merged part's id finds the survivor.")],
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """Show what made a profile: identifiers, merges, manual links, and the events that did something, in order."""
    from headrace.api.identity.v1.identity_service_pb2 import GetIdentityGraphRequest

    stub, name = platform.identity, platform.name("profiles", profile)
    first: Any = None  # all but the links stands on the first page only

    async def fetch(size: int, token: str) -> Any:
        nonlocal first
        page = await stub.GetIdentityGraph(GetIdentityGraphRequest(name=name, page_size=size, page_token=token))
        first = first or page
        return page

    links = await listed(fetch, "links", limit=limit, everything=everything)
    if out.as_json:
        plain = {**plain_of(first), "links": plain_of(links)}
        del plain["next_page_token"]
        write_json(plain)
        return
    write(f"{first.profile}{f', stems from {first.stems_from}' if first.stems_from else ''}\n")
    out.rows([_node_row(n) for n in first.nodes], ("identifier", "brought by=message_id", "time", "part"))
    if first.merges:
        write("")
        out.rows([_merge_row(m) for m in first.merges], _MERGE_COLUMNS)
    if first.manual_links:
        write("")
        out.rows(
            [identity_links.link_row(m) for m in first.manual_links],
            ("manual link=name", "kind", "first", "second", "reason"),
        )
    write("")
    out.rows([_link_row(link) for link in links], _LINK_COLUMNS)


@command(app, "explain")
async def explain(
    platform: Platform,
    out: Output,
    namespace: Annotated[str, Argument(help='Namespace of one identifier, such as "email".')],
    value: Annotated[str, Argument(help="Its value; normalised as events are.")],
    other_namespace: Annotated[str, Argument(help="Namespace of the other one.")],
    other_value: Annotated[str, Argument(help="Its value.")],
) -> None:
    """Say why two identifiers are one person, or what keeps them apart."""
    from headrace.api.common.v1.event_pb2 import Identifier
    from headrace.api.identity.v1.identity_service_pb2 import ExplainLinkRequest

    request = ExplainLinkRequest(parent=platform.parent)
    getattr(request, "from").CopyFrom(Identifier(namespace=namespace, value=value))
    request.to.CopyFrom(Identifier(namespace=other_namespace, value=other_value))
    answer = await platform.identity.ExplainLink(request)
    if out.as_json:
        out.item(answer)
        return
    write(answer.summary)
    if answer.steps:
        write("")
        out.rows([_step_row(s) for s in answer.steps], ("from", "to", "message_id", "time", "action", "rule"))
    if answer.kept_apart_by:
        write("")
        out.rows([_link_row(link) for link in answer.kept_apart_by], _LINK_COLUMNS)


@command(app, "merges")
async def merges(
    platform: Platform,
    out: Output,
    profile: Annotated[
        str | None, Argument(help="Profile id or resource name; without it all of the workspace.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    everything: All = False,
) -> None:
    """List recorded merges, newest first."""
    from headrace.api.identity.v1.identity_service_pb2 import ListMergesRequest

    stub = platform.identity
    parent = platform.parent if profile is None else platform.name("profiles", profile)
    found = await listed(
        lambda size, token: stub.ListMerges(ListMergesRequest(parent=parent, page_size=size, page_token=token)),
        "merges",
        limit=limit,
        everything=everything,
    )
    out.rows(found if out.as_json else [_merge_row(m) for m in found], _MERGE_COLUMNS)


_MERGE_COLUMNS = (
    "merge=name",
    "survivor",
    "message_id",
    "time",
    "rule",
    "loser found by=lost",
    "survivor found by=found",
)


def _node_row(node: Any) -> dict[str, Any]:
    return {
        "identifier": _text(node.identifier),
        "message_id": node.message_id,
        "time": time_of(node.timestamp_us),
        "part": node.part,
    }


def _merge_row(merge: Any) -> dict[str, Any]:
    return {
        "name": merge.name,
        "survivor": merge.merge.survivor,
        "message_id": merge.message_id,
        "time": time_of(merge.timestamp_us),
        "rule": merge.rule,
        "lost": [_text(i) for i in merge.loser_identifiers],
        "found": [_text(i) for i in merge.survivor_identifiers],
    }


def _link_row(link: Any) -> dict[str, Any]:
    decision = link.decision
    return {
        "time": time_of(link.timestamp_us),
        "message_id": link.message_id,
        "source": link.source_id,
        "part": link.part,
        "action": plain_of(decision)["action"],
        "rule": decision.rule,
        "identifiers": [_text(i) for i in decision.identifiers],
        "set_aside": [f"{_text(s.identifier)} ({s.rule})" for s in decision.set_aside],
    }


def _step_row(step: Any) -> dict[str, Any]:
    ends = {"from": _text(getattr(step, "from")), "to": _text(step.to)}
    if step.manual_link:
        return ends | {"action": "linked by hand", "rule": step.manual_link}
    return ends | _link_row(step.link)


def _text(identifier: Any) -> str:
    return f"{identifier.namespace}:{identifier.value}"


@app.command("replay")
def replay(
    events: Annotated[Path, Argument(help="NDJSON: one message of the Segment HTTP API a line; - is standard input.")],
    rules: Annotated[Path | None, Option("--rules", help="Identity rules as JSON; default: the default rules.")] = None,
    links: Annotated[Path | None, Option("--links", help="Manual links as JSON; default: none.")] = None,
    as_json: Annotated[bool, Option("--json", help="JSON for machines in place of tables.")] = False,
) -> None:
    """Resolve events in memory, by the code of the service: which people there are, and why."""
    from headrace_identity.resolving.offline import LineError, LinksError, replay_lines
    from headrace_identity.resolving.rules import RulesError

    rules_text = read_text(rules) if rules is not None else None
    try:
        result = replay_lines(rules_text, _lines(events), read_text(links) if links is not None else None)
    except LineError as error:
        raise UsageProblem(f"{events}: {error}") from None
    except RulesError as error:
        raise UsageProblem(f"{rules}: {error}") from None
    except LinksError as error:
        raise UsageProblem(f"{links}: {error}") from None
    if as_json:
        write_json(result)
    else:
        _show(result)


def _lines(path: Path) -> list[bytes]:
    """The file's lines at their places, blank ones as empty, so that errors name the right line."""
    lines: list[bytes] = []
    for number, text in ndjson_lines(path):
        lines += [b""] * (number - len(lines) - 1)
        lines.append(text)
    return lines


def _show(result: dict[str, Any]) -> None:
    people = [
        [p["id"], ", ".join(f"{n}:{v}" for n, v in p["identifiers"]), cell(p["traits"]), str(len(p["message_ids"]))]
        for p in result["profiles"]
    ]
    write(table(["PROFILE", "IDENTIFIERS", "TRAITS", "MESSAGES"], people))
    write("")
    decisions = [[d["message_id"], d["action"], d["profile"], d["rule"], _set_aside(d)] for d in result["decisions"]]
    write(table(["MESSAGE", "ACTION", "PROFILE", "RULE", "SET ASIDE"], decisions))


def _set_aside(decision: dict[str, Any]) -> str:
    return ", ".join(f"{':'.join(s['identifier'])} ({s['rule']})" for s in decision.get("set_aside", ()))
