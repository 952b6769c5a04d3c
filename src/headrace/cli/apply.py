"""`headrace apply`, `diff` and `export`: the platform's configuration as YAML files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from headrace.cli.command import calling
from headrace.cli.files import read_text
from headrace.cli.output import Output, write, write_json
from headrace.cli.platform import Platform
from headrace.cli.problems import FAILED, CommandFailed, UsageProblem, say

Files = Annotated[
    list[Path], Option("--file", "-f", help="YAML file with one or more documents; - is standard input; repeatable.")
]

_DONE = {"create": "created", "update": "changed", "unchanged": "unchanged"}


async def _apply(
    platform: Platform,
    out: Output,
    file: Files,
    dry_run: Annotated[bool, Option("--dry-run", help="Check everything and show what would be done.")] = False,
    force: Annotated[bool, Option("--force", help="Archive audiences by which syncs go, too.")] = False,
) -> None:
    """Make sources, audiences, destinations and syncs as YAML files say; nothing is deleted.

    Everything is checked before anything is changed, and applying again changes nothing.
    """
    from headrace.cli.config.plan import described
    from headrace.cli.config.remote import check_archived

    steps = await _plan(platform, file)
    if not force:
        await check_archived(platform, steps)
    results = []
    for step in steps:
        result = step.action if dry_run else _DONE[await _carried_out(platform, step)]
        results.append({"kind": step.resource.kind, "id": step.resource.id, "result": result})
        if out.as_json:
            continue
        if dry_run:
            write("\n".join(described(step)))
        else:
            write(f"{result:<9}  {step.resource.title}")
    _say_notes(steps)
    if out.as_json:
        write_json(results)


async def _diff(platform: Platform, out: Output, file: Files) -> int:
    """Show what apply would change. Exit status 0: nothing, 1: something (or a failure), 2: the files are wrong.

    Secrets cannot be compared, because the platform never shows them; apply compares them.
    """
    from headrace.cli.config.plan import UNCHANGED, described

    steps = await _plan(platform, file)
    changing = [step for step in steps if step.action != UNCHANGED]
    if out.as_json:
        write_json(
            [
                {
                    "kind": step.resource.kind,
                    "id": step.resource.id,
                    "action": step.action,
                    "changes": [{"path": c.path, "before": c.before, "after": c.after} for c in step.changes],
                    "secrets": list(step.secrets),
                }
                for step in steps
                if step.action != UNCHANGED or step.secrets
            ]
        )
    else:
        for step in steps:
            if step.action != UNCHANGED or step.secrets:
                write("\n".join(described(step)))
        if not changing:
            write("no differences")
    _say_notes(steps)
    return FAILED if changing else 0


async def _export(
    platform: Platform,
    out: Output,
    kind: Annotated[
        list[str] | None,
        Option("--kind", help="Only this kind, such as Source or IdentityRules; repeatable."),
    ] = None,
) -> None:
    """Write the configuration as YAML that `apply` takes; secrets are masked, and a mask leaves the stored secret."""
    from headrace.cli.config.kinds import KINDS
    from headrace.cli.config.remote import read_platform
    from headrace.cli.config.yamldoc import write_document

    unknown = [k for k in kind or () if k not in KINDS]
    if unknown:
        raise UsageProblem(f"there is no kind {unknown[0]!r}: it is one of {', '.join(KINDS)}")
    found = await read_platform(platform, kind or list(KINDS))
    documents: list[dict[str, Any]] = []
    for (name, id), stored in found.resources.items():
        values = {key: value for key, value in stored.values.items() if value not in (None, "", [], {}, False)}
        if name == "Audience":
            values["active"] = stored.values["active"]
        documents.append({"kind": name, "id": id, **values})
    if out.as_json:
        write_json(documents)
        return
    write("\n---\n".join(map(write_document, documents)))


def _say_notes(steps: Sequence[Any]) -> None:
    """Say what the platform was told before, and is not in effect yet: it is no difference to the files."""
    for step in steps:
        if step.note:
            say(f"{step.resource.title}: {step.note}")


async def _carried_out(platform: Platform, step: Any) -> str:
    """Carry out a step; a failure names the resource.

    Raises:
        CommandFailed: The platform refuses it.
    """
    import grpc

    from headrace.cli.calls import explained
    from headrace.cli.config.remote import carry_out

    try:
        return await carry_out(platform, step)
    except grpc.aio.AioRpcError as error:
        why = explained(error, platform)
        raise CommandFailed(
            f"{step.resource.place}: {step.resource.title}: {why}. "
            "What came before it is done: correct this and apply again"
        ) from error


async def _plan(platform: Platform, files: Sequence[Path]) -> Sequence[Any]:
    """The steps of files against the platform.

    Raises:
        UsageProblem: The files are wrong, or do not fit what the platform has.
    """
    from headrace.cli.config.plan import make_plan
    from headrace.cli.config.remote import needed_kinds, read_platform
    from headrace.cli.config.resources import read_resources
    from headrace.cli.config.yamldoc import ProblemsFound

    try:
        wanted = read_resources([(_title(f), read_text(f)) for f in files], os.environ)
        if not wanted:
            raise UsageProblem("the files describe nothing: a document is a mapping with kind, id and more")
        return make_plan(wanted, await read_platform(platform, needed_kinds(wanted)))
    except ProblemsFound as found:
        raise UsageProblem("nothing was changed:\n" + str(found)) from None


def _title(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


apply = calling(_apply)
diff = calling(_diff)
export = calling(_export)
