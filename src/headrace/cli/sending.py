"""Sends events from NDJSON to the HTTP API: batches, several requests at a time, retries, an account of each line.

Every message has its message id before it is sent, so sending a file again, or a batch whose answer was lost, makes
nothing twice. A line without `messageId` gets one made of the file's name, the line's number and its content.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from headrace.cli.problems import CommandFailed

MAX_BATCH_BYTES = 500_000
"""Below the 512 KiB that the API takes, with room for the frame around the messages."""
MAX_BATCH_MESSAGES = 2_500

_LONGEST_PAUSE_S = 60.0
_FIRST_PAUSE_S = 0.5
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_SINGLE_REFUSALS = frozenset({400, 413})


@dataclass(frozen=True, slots=True)
class Line:
    """A message and the line that it came from."""

    number: int
    message_id: str
    raw: bytes
    """JSON with the message id in it."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that was not accepted."""

    line: int
    message_id: str
    code: str
    message: str


@dataclass
class Report:
    """What became of a file."""

    accepted: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    retries: int = 0
    """Requests that had to be sent again."""
    seconds: float = 0.0

    @property
    def lines(self) -> int:
        """Lines that were read."""
        return self.accepted + len(self.rejected)

    def as_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        rejected = [
            {"line": r.line, "message_id": r.message_id, "code": r.code, "message": r.message}
            for r in sorted(self.rejected, key=lambda r: r.line)
        ]
        return {
            "lines": self.lines,
            "accepted": self.accepted,
            "rejected": rejected,
            "retries": self.retries,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Sending:
    """How to send.

    Args:
        url: URL of ingest's HTTP port.
        write_key: Write key of the source.
        batch: Messages in a request at most.
        concurrency: Requests under way at a time.
        give_up_s: For how many seconds a request is tried again before the command fails.
    """

    url: str
    write_key: str = field(repr=False)
    batch: int = 500
    concurrency: int = 4
    give_up_s: float = 120.0


def read_line(number: int, text: bytes, file: str) -> Line | Rejected:
    """A line as it will be sent; or why it cannot be: then it would only be refused."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return Rejected(number, "", "malformed", "the line is no JSON")
    if not isinstance(message, dict):
        return Rejected(number, "", "malformed", "the line is no JSON object")
    given = message.get("messageId")
    if given not in (None, ""):
        return Line(number, str(given), text)
    digest = hashlib.blake2b(f"{file}\x1f{number}\x1f".encode() + text, digest_size=16).hexdigest()
    message["messageId"] = f"file-{digest}"
    return Line(number, message["messageId"], json.dumps(message).encode())


def batches(lines: Iterable[Line], limit: int) -> Iterator[list[Line]]:
    """Lines in batches that the API takes."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) >= limit or size + len(line.raw) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.raw) + 1
    if batch:
        yield batch


async def send(lines: Iterator[tuple[int, bytes]], file: str, how: Sending, progress: Callable[[int], None]) -> Report:
    """Send all lines; ends when each is accepted or rejected.

    Args:
        lines: Numbers and texts.
        file: Name of the file, part of the message ids that are made.
        how: How to send.
        progress: Told the number of lines done whenever it changes.

    Raises:
        CommandFailed: The platform refuses the key, or cannot be reached or stays busy for too long. What was accepted
            until then stays; sending the file again makes nothing twice.
    """
    report = Report()
    started = time.monotonic()
    queue: asyncio.Queue[list[Line] | None] = asyncio.Queue(how.concurrency)
    timeout = aiohttp.ClientTimeout(total=60)
    key = base64.b64encode(f"{how.write_key}:".encode()).decode()
    headers = {"Authorization": f"Basic {key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:

        async def work() -> None:
            while (batch := await queue.get()) is not None:
                await _send_batch(http, how, batch, report)
                progress(report.lines)

        def good() -> Iterator[Line]:
            for number, text in lines:
                line = read_line(number, text, file)
                if isinstance(line, Line):
                    yield line
                else:
                    report.rejected.append(line)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(how.concurrency):
                    group.create_task(work())
                source = batches(good(), how.batch)
                # Reading may wait for a pipe, so it has a thread of its own.
                while (batch := await asyncio.to_thread(next, source, None)) is not None:
                    await queue.put(batch)
                for _ in range(how.concurrency):
                    await queue.put(None)
        except* CommandFailed as failed:
            raise CommandFailed(
                f"{failed.exceptions[0]}; {report.accepted} messages were accepted before, "
                "and sending the file again makes nothing twice"
            ) from None
    report.seconds = time.monotonic() - started
    return report


async def _send_batch(http: aiohttp.ClientSession, how: Sending, batch: list[Line], report: Report) -> None:
    body = b'{"batch":[' + b",".join(line.raw for line in batch) + b"]}"
    status, answer = await _post(http, how, body, report)
    if status == 200:
        refused = {r["index"]: r for r in answer.get("results", ())}
        for index, line in enumerate(batch):
            if index in refused:
                r = refused[index]
                report.rejected.append(Rejected(line.number, line.message_id, r["code"], r["message"]))
            else:
                report.accepted += 1
        return
    code, message = str(answer.get("code", "")), str(answer.get("message", ""))
    if status in _SINGLE_REFUSALS and len(batch) > 1:
        # The request as a whole was refused, for one of its messages perhaps: find out which.
        for line in batch:
            await _send_batch(http, how, [line], report)
    elif status in _SINGLE_REFUSALS:
        report.rejected.append(Rejected(batch[0].number, batch[0].message_id, code or str(status), message))
    elif status == 401:
        raise CommandFailed(f"the write key was refused: {message.rstrip('.')}. Pass another by --write-key")
    else:
        raise CommandFailed(f"{how.url} answered {status} {code}: {message.rstrip('.')}")


async def _post(http: aiohttp.ClientSession, how: Sending, body: bytes, report: Report) -> tuple[int, dict[str, Any]]:
    """Post until there is an answer that trying again cannot change."""
    pause_s = _FIRST_PAUSE_S
    deadline = time.monotonic() + how.give_up_s
    while True:
        try:
            async with http.post(f"{how.url}/v1/batch", data=body) as got:
                answer = await _json_of(got)
                if got.status not in _TRY_AGAIN:
                    return got.status, answer
                why = f"{how.url} stays busy: {got.status} {answer.get('message', '')}".rstrip(". ")
                wait_s = _seconds(got.headers.get("Retry-After"), pause_s)
        except (aiohttp.ClientError, TimeoutError) as error:
            why = f"cannot reach {how.url}: {error or type(error).__name__}"
            wait_s = pause_s
        if time.monotonic() + wait_s > deadline:
            raise CommandFailed(why)
        report.retries += 1
        await asyncio.sleep(wait_s * (1 + random.random() / 4))  # noqa: S311 - spreads retries, hides nothing
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def _json_of(got: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        answer = json.loads(await got.read() or b"{}")
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _seconds(text: str | None, otherwise: float) -> float:
    try:
        return min(max(float(text or ""), 0.0), _LONGEST_PAUSE_S)
    except ValueError:
        return otherwise
