"""Connectors that deliver by themselves, each of which breaks one rule of the conformance kit, and a good one."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from tests.support.plugin_zoo import write

PLUGIN = "line-zoo"
GOOD = "good-line"

_HEAD = '''
import asyncio
import json
import time
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field as Setting

from headrace_sdk import *


class Settings(BaseModel):
    """Of the zoo."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    address: str = Setting("db.example:7", title="Address", description="Host and port.")
    file: str = Setting("", title="File", description="Takes the place of the server.")


VALUES = dict(
    title="Lines", description="Says lines.", settings=Settings, capabilities=frozenset({Capability.FORWARDING}),
    batch=BatchPolicy(max_items=50, max_bytes=20_000), idempotency=Idempotency.KEY, schemes=("line",),
)


class Good(Destination[Settings]):
    manifest = None
    failed = 503

    def send_events(self, batch):
        if batch.events:
            body = json.dumps([event.message_id for event in batch.events]).encode()
            yield Request(method="SAY", url="line://there/in", body=body, items=tuple(range(len(batch.events))))

    async def deliver(self, request):
        if self.settings.file:
            return await self.write(request)
        try:
            reader, writer = await self.opened()
        except OSError:
            raise TransientError("nobody is there") from None
        try:
            writer.write(request.body)
            line = await self.waited(reader)
        except ConnectionError:
            line = b""
        finally:
            await self.left(writer)
        return self.answered(line)

    async def write(self, request):
        path = Path(self.settings.file)
        there = path.read_text().splitlines() if path.exists() else []
        path.write_text("\\n".join(dict.fromkeys([*there, *json.loads(request.body)])))
        return Response(status=200)

    async def opened(self):
        host, _, port = self.settings.address.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def waited(self, reader):
        return await reader.readline()

    async def left(self, writer):
        writer.close()

    def answered(self, line):
        return Response(status=200 if line == b"ok\\n" else 503)

    def read(self, request, response):
        if response.status == 503:
            raise TransientError("not now")
        return Outcomes.every(request, Delivered())
'''

BAD: dict[str, str] = {
    "behaviour.unreachable": """
        async def opened(self):
            try:
                return await super().opened()
            except ConnectionRefusedError:
                raise ValueError("nobody is there") from None
    """,
    "behaviour.broken-off": """
        def answered(self, line):
            return Response(status=200 if line in (b"", b"ok\\n") else 503)
    """,
    "behaviour.nonsense": """
        def answered(self, line):
            return Response(status=200 if line.startswith(b"HTTP") else 503)
    """,
    "behaviour.silent": """
        async def deliver(self, request):
            try:
                async with asyncio.timeout(0.1):
                    return await super().deliver(request)
            except TimeoutError:
                return Response(status=200)
    """,
    "behaviour.private": """
        async def deliver(self, request):
            try:
                await self.left((await self.opened())[1])
            except PermissionError:
                return Response(status=200)
            except OSError:
                pass
            return await super().deliver(request)
    """,
    "behaviour.delivers": """
        async def write(self, request):
            with Path(self.settings.file).open("x") as file:
                file.write("once")
            return Response(status=200)
    """,
    "life.given-up": """
        tries = 0
        async def opened(self):
            self.tries += 1
            if self.tries == 2:
                raise OSError("the pool is used up")
            return await super().opened()
    """,
    "life.closed": """
        kept: ClassVar = []
        async def left(self, writer):
            self.kept.append(writer)
            if len(self.kept) % 2:
                writer.close()
    """,
}
"""What is wrong: the check that must fail, to the body of its class."""

VENDOR = {
    "answers": [
        {"name": "accepted", "status": 200},
        {"name": "not now", "status": 503, "means": "retry"},
    ],
    "delivery": {"settings": {"address": "$address"}, "works": {"file": "$folder/lines"}},
}


def name_of(check: str) -> str:
    """Name of the connector that breaks a check."""
    return check.replace(".", "-")


def install(folder: Path) -> None:
    """Put one plugin with the good connector and all bad ones into a folder, and the author's file beside it."""
    code = [_HEAD]
    offered = [(GOOD, "Good")]
    for check, body in BAD.items():
        kind = "".join(map(str.capitalize, name_of(check).split("-")))
        code.append(f"class {kind}(Good):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n")
        offered.append((name_of(check), kind))
    code.append("\n@hookimpl\ndef headrace_connectors():\n    return [\n")
    code += [f"        Manifest(**VALUES, name={name!r}, factory='MODULE:{kind}'),\n" for name, kind in offered]
    code.append("    ]\n")
    write(folder, PLUGIN, "\n".join(code))
    (folder / "author").mkdir()
    (folder / "author" / "vendor.json").write_text(json.dumps(VENDOR))
