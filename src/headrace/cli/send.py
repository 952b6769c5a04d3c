"""`headrace send`: events from an NDJSON file to a running platform."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from headrace.cli.connection import INGEST_URL_VARIABLE, WRITE_KEY_VARIABLE, resolve
from headrace.cli.files import STDIN, ndjson_lines
from headrace.cli.output import table, write, write_json
from headrace.cli.problems import FAILED, UsageProblem, say

_SHOWN_REJECTIONS = 20


def send(
    file: Annotated[Path, Argument(help="NDJSON: one message of the Segment HTTP API a line; - is standard input.")],
    ready_file: Annotated[
        Path | None, Option("--ready-file", help="Addresses and keys of a platform, as `headrace up` writes them.")
    ] = None,
    url: Annotated[str, Option("--url", help="URL of the HTTP API; default: the ready file's.")] = "",
    write_key: Annotated[str, Option("--write-key", help="Write key of the source; default: the ready file's.")] = "",
    batch: Annotated[int, Option("--batch", min=1, max=2_500, help="Messages in a request at most.")] = 500,
    concurrency: Annotated[int, Option("--concurrency", min=1, max=64, help="Requests under way at a time.")] = 4,
    give_up: Annotated[
        float, Option("--give-up", min=0, help="Seconds for which a request is tried again before this fails.")
    ] = 120.0,
    as_json: Annotated[bool, Option("--json", help="The report as JSON.")] = False,
) -> int:
    """Send events from a file; exit status 1 when a line was rejected. Sending a file again makes nothing twice."""
    from headrace.cli import sending

    found = resolve(ready_file=ready_file)
    url, write_key = url or found.ingest_http, write_key or found.write_key
    if not url:
        raise UsageProblem(f"where to send is not known: pass --url or --ready-file, or set {INGEST_URL_VARIABLE}")
    if not write_key:
        raise UsageProblem(f"no write key is known: pass --write-key or --ready-file, or set {WRITE_KEY_VARIABLE}")
    if not url.startswith(("http://", "https://")):
        raise UsageProblem(f"--url {url}: it must begin with http:// or https://")
    if str(file) != STDIN and not file.is_file():
        raise UsageProblem(f"{file}: there is no such file")
    how = sending.Sending(url.rstrip("/"), write_key, batch=batch, concurrency=concurrency, give_up_s=give_up)
    with _progress(file) as progress:
        report = asyncio.run(sending.send(ndjson_lines(file), file.name, how, progress))
    if as_json:
        write_json(report.as_json())
    else:
        _show(report)
    return FAILED if report.rejected else 0


def _show(report: object) -> None:
    from headrace.cli.sending import Report

    assert isinstance(report, Report)
    rate = report.lines / report.seconds if report.seconds else 0.0
    write(
        f"{report.accepted} accepted, {len(report.rejected)} rejected, {report.retries} requests repeated, "
        f"{report.seconds:.1f} s, {rate:,.0f} a second"
    )
    rejected = sorted(report.rejected, key=lambda r: r.line)
    if rejected:
        rows = [[str(r.line), r.message_id, r.code, r.message] for r in rejected[:_SHOWN_REJECTIONS]]
        write(table(["LINE", "MESSAGE ID", "CODE", "REASON"], rows))
    if len(rejected) > _SHOWN_REJECTIONS:
        write(f"... and {len(rejected) - _SHOWN_REJECTIONS} more: --json lists all")


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int], None]]:
    """Counts lines on a terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"sending {file}") as status:
        yield lambda done: status.update(f"sending {file}: {done:,} lines")
    say("")
