"""Connectors that each break one rule of the conformance kit, and a good one beside them, as an installed plugin."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from tests.support.plugin_zoo import write

PLUGIN = "conformance-zoo"
GOOD = "good"

_HEAD = '''
import json
import os
import random
import sys
import time
import urllib.request
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field as Setting, SecretStr

from headrace_sdk import *

IMPORTS = Path(__file__).with_name("imports.txt")
with IMPORTS.open("a") as file:
    file.write("x")
IMPORTED = len(IMPORTS.read_text())


class Settings(BaseModel):
    """Of the zoo."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: SecretStr = Setting(min_length=1, title="Token", description="Of the account.")
    account: str = Setting(min_length=3, title="Account", description="Name of the account.")
    version: str = Setting("v2", title="Version", description="Of the API.")


class OpenSettings(Settings):
    model_config = ConfigDict(extra="ignore")


class BareSettings(Settings):
    token: SecretStr = Setting(min_length=1, title="Token")


class ShownSettings(Settings):
    token: str = Setting(min_length=1, title="Token", description="Of the account.")


class LeakySettings(Settings):
    model_config = ConfigDict(hide_input_in_errors=False)


class PickySettings(Settings):
    account: str = Setting(pattern="^§§[0-9]{3}ß$", title="Account", description="Name of the account.")


FIELDS = (
    Field(name="email", title="E-mail", many=True, default="profile.identifiers.email"),
    Field(name="phone", title="Phone"),
    Field(name="event_id", title="Event id", default="event.message_id"),
)
VALUES = dict(
    title="Zoo", description="Takes everything.", settings=Settings, fields=FIELDS,
    capabilities=frozenset(Capability), batch=BatchPolicy(max_items=50, max_bytes=20_000), any_of=(("email", "phone"),),
    versions=ApiVersions(setting="version", ends={"v1": "2020-01-01", "v2": "2999-01-01"}),
    idempotency=Idempotency.KEY, list_setting="account", minimum_list_size=100,
    limits=(RateLimit(count=10, per_s=1.0),),
)


class Good(Destination[Settings]):
    manifest = None
    url = "https://vendor.example/in"

    def rows(self, member):
        return [Row.of(member.fields)] if member.fields else []

    def request(self, kind, items, place=None):
        places = tuple(range(len(items))) if place is None else (place,)
        document = {"kind": kind, "account": self.settings.account, "items": items}
        return Request(method="POST", url=self.url, body=json.dumps(document).encode(), items=places)

    def add_members(self, batch):
        yield from self.requests("add", [{"key": row.key} for row in batch.rows])

    def remove_members(self, batch):
        yield from self.requests("remove", [{"key": row.key} for row in batch.rows])

    def send_events(self, batch):
        yield from self.requests("events", [{"id": event.message_id} for event in batch.events])

    def delete(self, batch):
        yield from self.requests("delete", [{"profile": subject.profile_id} for subject in batch.subjects])

    def requests(self, kind, items):
        if items:
            yield self.request(kind, items)

    def accepted(self, request, answer):
        return Outcomes.every(request, Delivered())

    def read(self, request, response):
        answer = response.json_object()
        if response.status == 429:
            raise RateLimited("asks for fewer", response.retry_after_s())
        if response.status == 401:
            raise AuthError("refuses the token")
        if response.status >= 500:
            raise TransientError(f"answered {response.status}")
        if 300 <= response.status < 400:
            raise ConfigError("leads elsewhere", "account")
        if response.status >= 400:
            raise RecordRejected(f"answered {response.status}")
        if answer.get("job") is True:
            return Outcomes.every(request, Pending(job="1"))
        if answer.get("small") is True:
            raise ConfigError("the list is too small", "account")
        if answer.get("ok") is not True:
            raise TransientError("answered with something else")
        bad = answer.get("bad", ())
        items = tuple(Rejected(reason="bad") if at in bad else Delivered() for at in range(len(request.items)))
        return Outcomes(items=items)

    def poll(self, job):
        return Request(method="GET", url=self.url, items=tuple(range(job.items)))

    def check(self):
        yield Check(title="May write", request=Request(method="GET", url=self.url, items=()))

    def read_check(self, check, response):
        return ""

    def lists(self, page=""):
        return Request(method="GET", url=self.url, items=())

    def create_list(self, name):
        return Request(method="POST", url=self.url, items=())
'''

_READ = """
        def read(self, request, response):
            if {when}:
                return Outcomes.every(request, {outcome}())
            return super().read(request, response)
"""
_TOUCH = """
        def send_events(self, batch):
            {touch}
            return super().send_events(batch)
"""

_DIFFER = """
        def {call}(self, batch):
            for request in super().{call}(batch):
                method = "PUT" if {when} else "POST"
                yield Request(method=method, url=self.url, body=request.body, items=request.items)
"""


def _differs(call: str, when: str) -> str:
    return _DIFFER.format(call=call, when=when)


def _reads(when: str, outcome: str = "Delivered") -> str:
    return _READ.format(when=when, outcome=outcome)


def _touches(touch: str) -> str:
    return _TOUCH.format(touch=touch)


BAD: dict[str, tuple[str, str]] = {
    "manifest.titles": ("description='no sentence'", ""),
    "manifest.fields": ("fields=(FIELDS[0], Field(name='phone', title='E-mail'), FIELDS[2])", ""),
    "manifest.settings": ("settings=BareSettings", ""),
    "manifest.secrets": ("settings=ShownSettings", ""),
    "manifest.unknown-settings": ("settings=OpenSettings", ""),
    "manifest.any-of": ("any_of=(('email',),)", ""),
    "manifest.limits": ("retry=RetryPolicy(base_s=60.0, cap_s=10.0)", ""),
    "manifest.versions": ("versions=ApiVersions(setting='version', ends={'v2': '2020-01-01'})", ""),
    "manifest.list-setting": ("list_setting=''", ""),
    "manifest.mappings": ("fields=(*FIELDS, Field(name='odd', title='Odd', default='((('))", ""),
    "manifest.samples": (
        "",
        """
        def delete(self, batch):
            if len(batch.subjects) == 1:
                return [Skip(item=0, reason="is alone")]
            return super().delete(batch)
    """,
    ),
    "manifest.capabilities": ("", "def lists(self, page=''): raise NotImplementedError"),
    "golden.required": ("", _differs("send_events", "len(batch.events) == 1 and len(batch.events[0].fields) == 1")),
    "golden.all": ("", _differs("send_events", "len(batch.events) == 1 and len(batch.events[0].fields) == 3")),
    "golden.several": ("", _differs("send_events", "len(batch.events) == 3")),
    "golden.members": ("", _differs("add_members", "len(batch.rows) == 3")),
    "golden.removal": ("", _differs("remove_members", "len(batch.rows) == 2")),
    "golden.deletion": ("", _differs("delete", "len(batch.subjects) == 2")),
    "golden.cases": ("", _differs("send_events", "batch.events and batch.events[0].message_id == 'refund-1'")),
    "behaviour.accepted": (
        "",
        """
        def read(self, request, response):
            outcomes = super().read(request, response)
            if response.json_object() == {"ok": True} and b'"delete"' in request.body:
                return Outcomes.every(request, Retry(reason="not sure"))
            return outcomes
    """,
    ),
    "behaviour.answers": ("", _reads("response.json_object().get('bad')")),
    "behaviour.rate-limited": (
        "",
        """
        def read(self, request, response):
            if response.status == 429:
                raise RateLimited("asks for fewer", 1.0)
            return super().read(request, response)
    """,
    ),
    "behaviour.server-error": ("", _reads("response.status == 502")),
    "behaviour.expired-token": (
        "",
        "def read(self, request, response):\n"
        "    if response.status == 401: raise TransientError('refused')\n"
        "    return super().read(request, response)",
    ),
    "behaviour.refused": ("", _reads("response.status == 418")),
    "behaviour.redirect": ("", _reads("response.status == 302")),
    "behaviour.non-json": ("", _reads("response.status == 200 and response.body.startswith(b'<!doctype')")),
    "behaviour.unknown-answer": ("", _reads("response.body == b'null'")),
    "behaviour.huge": ("", _reads("response.status == 200 and len(response.body) > 500_000")),
    "behaviour.slow": (
        "",
        """
        went_well = False
        def read(self, request, response):
            self.went_well = False
            outcomes = super().read(request, response)
            self.went_well = all(isinstance(item, Delivered) for item in outcomes.items)
            return outcomes

        def request(self, kind, items, place=None):
            request = super().request(kind, items, place)
            method = "PUT" if self.went_well else "POST"
            return Request(method=method, url=self.url, body=request.body, items=request.items)
    """,
    ),
    "behaviour.half-closed": (
        "",
        _reads("response.body[:2] == b'{\"' and response.body[-1:] != b'}' and len(response.body) < 99"),
    ),
    "behaviour.duplicates": (
        "",
        """
        def send_events(self, batch):
            for request in super().send_events(batch):
                late = batch.now_us > 1_767_225_600_000_000
                yield self.request("events", [{"id": batch.now_us} for _ in batch.events]) if late else request
    """,
    ),
    "behaviour.small-list": (
        "",
        """
        def read(self, request, response):
            if response.json_object().get("small"):
                gone = (Rejected(reason="the list is too small"),) * len(request.items)
                return Outcomes(items=gone, misconfigured="the list is too small")
            return super().read(request, response)
    """,
    ),
    "behaviour.jobs": ("", "def poll(self, job): raise NotImplementedError"),
    "properties.accounted": (
        "",
        """
        def send_events(self, batch):
            yield from self.requests("events", [{"id": one.message_id} for one in batch.events if one.kind != "alias"])
    """,
    ),
    "properties.urls": (
        "",
        """
        def send_events(self, batch):
            for request in super().send_events(batch):
                person = batch.events[-1].profile if len(batch.events) == 5 else None
                url = f"{self.url}?m={person.identifiers['email'][0]}" if person else self.url
                yield Request(method="POST", url=url, body=request.body, items=request.items)
    """,
    ),
    "properties.normalised": (
        "",
        "def normalise(self, field, value): return Normalised(normalised=value[1:], sent='')",
    ),
    "properties.batches": (
        "",
        """
        def send_events(self, batch):
            for request in super().send_events(batch):
                if len(batch.events) == 50:
                    for place, event in enumerate(batch.events):
                        yield Request(method="POST", url=self.url, body=b"x" * 30_000, items=(place,))
                else:
                    yield request
    """,
    ),
    "properties.repeatable": (
        "",
        """
        turn = 0
        def send_events(self, batch):
            self.turn += len(batch.events) == 6
            for request in super().send_events(batch):
                yield Request(method="POST", url=self.url, headers={"X": str(self.turn)}, body=request.body,
                              items=request.items) if self.turn and len(batch.events) == 6 else request
    """,
    ),
    "properties.keys": (
        "",
        """
        def rows(self, member):
            return [Row(key=member.profile_id + str(member.fields.get("email", [""])[0]) if member.profile_id == "p-6"
                        else member.profile_id, data=1)]
    """,
    ),
    "hygiene.secrets": ("", "def __repr__(self): return self.settings.token.get_secret_value()"),
    "hygiene.personal-data": (
        "",
        """
        def read(self, request, response):
            if response.status == 422:
                raise RecordRejected("bad Ada.Lovelace+0@Example.com")
            return super().read(request, response)
    """,
    ),
    "hygiene.clock": ("", _touches("time.time()")),
    "hygiene.chance": ("", _touches("random.random()")),
    "hygiene.blocking": ("", _touches("time.sleep(0)")),
    "hygiene.network": ("", _touches("os.system('true')")),
    "hygiene.files": ("", _touches("open(__file__).close()")),
    "hygiene.environment": ("", _touches("os.environ.get('HOME')")),
    "hygiene.quiet": ("", _touches("print('sent')")),
    "life.instances": (
        "",
        """
        last: ClassVar = []
        def __init__(self, settings):
            super().__init__(settings)
            self.last[:] = [settings.account]
        def request(self, kind, items, place=None):
            request = super().request(kind, items, place)
            odd = self.last[0] != self.settings.account
            return Request(method="PUT" if odd else "POST", url=self.url, body=request.body, items=request.items)
    """,
    ),
    "life.worker": (
        "",
        """
        def request(self, kind, items, place=None):
            request = super().request(kind, items, place)
            method = "POST" if "pytest" in sys.modules else "PUT"
            return Request(method=method, url=self.url, body=request.body, items=request.items)
    """,
    ),
    "life.cancelled": (
        "",
        """
        last = 0
        def send_events(self, batch):
            before, self.last = self.last, len(batch.events)
            for request in super().send_events(batch):
                method = "PUT" if before > 2 else "POST"
                yield Request(method=method, url=self.url, body=request.body, items=request.items)
    """,
    ),
    "life.restarted": (
        "",
        """
        def request(self, kind, items, place=None):
            request = super().request(kind, items, place)
            method = "PUT" if IMPORTED > 2 else "POST"
            return Request(method=method, url=self.url, body=request.body, items=request.items)
    """,
    ),
}
"""What is wrong: the check that must fail, to what its manifest says and the body of its class."""

ALONE = "life.restarted"
"""The check whose connector counts its processes, so that it needs a plugin for itself."""

VENDOR = {
    "settings": {},
    "answers": [
        {"name": "accepted", "status": 200, "body": {"ok": True}},
        {"name": "first refused", "status": 200, "body": {"ok": True, "bad": [0]}, "means": ["rejected", "delivered"]},
        {"name": "job", "status": 200, "body": {"job": True}, "means": "pending"},
        {
            "name": "small list",
            "calls": ["add_members"],
            "status": 200,
            "body": {"small": True},
            "means": "misconfigured",
        },
    ],
}


REFUND = {
    "settings": {"token": "zoo-token", "account": "zoo"},
    "call": "send_events",
    "items": [
        {
            "message_id": "refund-1",
            "kind": "track",
            "name": "Refunded",
            "fields": {"email": "ada@example.com", "phone": "1"},
        }
    ],
}
"""A golden case of the author's own."""


def name_of(check: str) -> str:
    """Name of the connector that breaks a check."""
    return check.replace(".", "-")


def install(folder: Path, *checks: str, plugin: str = PLUGIN) -> None:
    """Put one plugin with the good connector and those that break these checks into a folder."""
    code = [_HEAD]
    offered = [(GOOD, "Good", "")]
    for check in checks:
        more, body = BAD[check]
        kind = "".join(map(str.capitalize, name_of(check).split("-")))
        code.append(f"class {kind}(Good):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n    pass\n")
        offered.append((name_of(check), kind, more))
    code.append("\n@hookimpl\ndef headrace_connectors():\n    return [\n")
    for name, kind, more in offered:
        code.append(f"        Manifest(**{{**VALUES, **dict({more})}}, name={name!r}, factory='MODULE:{kind}'),\n")
    code.append("    ]\n")
    write(folder, plugin, "\n".join(code))


def write_author(folder: Path) -> None:
    """The author's files of the zoo, but for the golden cases that every connector has."""
    (folder / "cases").mkdir(parents=True, exist_ok=True)
    (folder / "vendor.json").write_text(json.dumps(VENDOR))
    (folder / "cases" / "refund.json").write_text(json.dumps(REFUND))
