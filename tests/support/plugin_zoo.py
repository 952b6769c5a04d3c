"""Bad plugins: installed-like distributions in a folder, each with one fault, and one good one beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

_NO_FACTORIES = {"no-class": "zoo:Nowhere", "no-destination": "zoo:Settings"}
SECRET = "zoo-secret-do-not-show"  # of no real vendor

_GOOD = """
from collections.abc import Iterable, Sequence
from pydantic import BaseModel, SecretStr
from headrace_sdk import *

class Settings(BaseModel):
    token: SecretStr
    url: str = "https://vendor.example/in"

def manifest(name="NAME", **more):
    values = dict(
        name=name, title="Zoo", factory="MODULE:Zoo", settings=Settings, fields=(Field(name="email", title="E-mail"),),
        capabilities=frozenset(Capability) - {Capability.EVENT_SYNC},
    )
    return Manifest(**{**values, **more})

class Zoo(Destination[Settings]):
    manifest = None

    def rows(self, member):
        email = member.fields.get("email", "")
        if not email:
            raise RecordRejected("has no e-mail address", "email")
        return [Row.of(email)]

    def requests(self, size, **more):
        headers = {"Authorization": f"Bearer {self.settings.token.get_secret_value()}"}
        values = dict(method="POST", url=self.settings.url, headers=headers, body=b"{}", items=tuple(range(size)))
        return [Request(**{**values, **more})]

    def add_members(self, batch):
        return self.requests(len(batch.rows))

    def remove_members(self, batch):
        return self.requests(len(batch.rows))

    def send_events(self, batch):
        return self.requests(len(batch.events))

    def delete(self, batch):
        return self.requests(len(batch.subjects))

    def read(self, request, response):
        if response.status == 401:
            raise AuthError(f"refused {self.settings.token.get_secret_value()}")
        return Outcomes.every(request, Delivered())

@hookimpl
def headrace_connectors():
    return [manifest()]
"""

LOAD_FAULTS: Mapping[str, str] = {
    "raises-at-import": "raise RuntimeError('secret " + SECRET + "')",
    "syntax-error": "def (",
    "missing-module": "import no_such_module_anywhere",
    "exits-at-import": "import os\nos._exit(3)",
    "leaves-at-import": "import sys\nsys.exit('bye')",
    "hangs-at-import": "while True: pass",
    "no-hook": "x = 1",
    "no-connector": _GOOD + "\n@hookimpl\ndef headrace_connectors():\n    return []\n",
    "no-manifest": _GOOD + "\n@hookimpl\ndef headrace_connectors():\n    return ['zoo']\n",
    "bad-manifest": _GOOD + "\n@hookimpl\ndef headrace_connectors():\n    return [manifest(name='Not A Name')]\n",
    "future-api": _GOOD + "\n@hookimpl\ndef headrace_connectors():\n    return [manifest(api='2.0')]\n",
    "twice": _GOOD + "\n@hookimpl\ndef headrace_connectors():\n    return [manifest(), manifest()]\n",
    "looks-around-at-import": "import socket\ntry: socket.gethostbyname('vendor.example')\nexcept OSError: pass\n"
    + _GOOD,
    "unknown-hook": _GOOD + "\n@hookimpl\ndef headrace_conectors():\n    return []\n",
}
"""Code of a module each, which cannot be loaded."""

CALL_FAULTS: Mapping[str, str] = {
    "good": "def nothing(self): pass",
    "no-class": "",
    "no-destination": "",
    "refuses-settings": """
        def __init__(self, settings):
            raise ConfigError(f"bad token {settings.token.get_secret_value()}", "token")
    """,
    "raises": "def send_events(self, batch): raise RuntimeError(batch.events[0].message_id)",
    "hangs": """
        def send_events(self, batch):
            while True: pass
    """,
    "hangs-once": """
        def send_events(self, batch):
            while batch.events[0].message_id == "poison": pass
            return super().send_events(batch)
    """,
    "sleeps-in-c": "def send_events(self, batch): import time; time.sleep(60)",
    "exits": "def send_events(self, batch): import os; os._exit(139)",
    "raises-system-exit": "def send_events(self, batch): raise SystemExit(0)",
    "segfaults": "def send_events(self, batch): import ctypes; ctypes.string_at(0)",
    "eats-memory": "def send_events(self, batch): x = bytearray(8 << 30)",
    "deep-recursion": "def send_events(self, batch): return self.send_events(batch)",
    "remarks": """
        def send_events(self, batch):
            yield Note(item=0, reason="has no currency")
            yield from self.requests(len(batch.events))
    """,
    "misconfigured": "def send_events(self, batch): raise ConfigError('the list is gone: choose another')",
    "refused-whole": """
        def send_events(self, batch):
            import json
            body = json.dumps([event.message_id for event in batch.events]).encode()
            return self.requests(len(batch.events), body=body)

        def read(self, request, response):
            import json
            ids = json.loads(request.body)
            bad = {one for one in ids if one.startswith("bad")}
            if not bad:
                return Outcomes.every(request, Delivered())
            named = {one for one in bad if one.endswith("named")} or set(ids)
            items = [Rejected(reason="bad") if one in named else Retry(reason="not carried out") for one in ids]
            return Outcomes(items=tuple(items), refused_whole=True)
    """,
    "one-by-one": """
        def send_events(self, batch):
            for place, event in enumerate(batch.events):
                if event.message_id.startswith("bad"):
                    yield Skip(item=place, reason="cannot be written", is_failure=True)
                for step in range(0 if event.message_id.startswith("bad") else 3):
                    yield from self.requests(1, url=f"{self.settings.url}?{event.message_id}{step}", items=(place,))

        def read(self, request, response):
            if response.status >= 500:
                raise TransientError(f"answered {response.status}")
            return Outcomes.every(request, Warned(reason="odd") if response.status == 202 else Delivered())
    """,
    "loses-item": "def send_events(self, batch): return self.requests(len(batch.events) - 1)",
    "repeats-item": "def send_events(self, batch): return self.requests(len(batch.events)) * 2",
    "invents-item": "def send_events(self, batch): return self.requests(len(batch.events) + 1)",
    "yields-rubbish": "def send_events(self, batch): return ['request']",
    "returns-nothing": "def send_events(self, batch): return None",
    "injects-header": """
        def send_events(self, batch):
            return self.requests(len(batch.events), headers={"X": "a\\r\\nY: b"})
    """,
    "odd-address": "def send_events(self, batch): return self.requests(len(batch.events), url='file:///etc/passwd')",
    "wrong-types": "def send_events(self, batch): return self.requests(len(batch.events), body='text')",
    "opens-socket": """
        def send_events(self, batch):
            import socket
            socket.create_connection(("127.0.0.1", 9))
            return []
    """,
    "hides-socket": """
        def send_events(self, batch):
            import socket
            try: socket.create_connection(("127.0.0.1", 9))
            except OSError: pass
            return super().send_events(batch)
    """,
    "forks": """
        def send_events(self, batch):
            import ctypes, pathlib, time
            pid = ctypes.CDLL(None).fork()  # of which Python knows nothing
            if pid: pathlib.Path(__file__).with_name("child.pid").write_text(str(pid))
            time.sleep(60)
    """,
    "forks-and-ends": """
        def send_events(self, batch):
            import ctypes, os, pathlib, time
            pid = ctypes.CDLL(None).fork()
            if pid == 0: time.sleep(60)
            pathlib.Path(__file__).with_name("child.pid").write_text(str(pid))
            os._exit(5)
    """,
    "starts-process": "def send_events(self, batch): import subprocess; subprocess.run(['true']); return []",
    "prints-secret": """
        def send_events(self, batch):
            import sys, os, base64
            secret = self.settings.token.get_secret_value()
            print("out", secret)
            print("err", secret, file=sys.stderr)
            print("coded", base64.b64encode(secret.encode()).decode())
            sys.stdout.flush()
            os.write(1, f"raw {secret}\\n".encode())
            return super().send_events(batch)
    """,
    "prints-much": """
        def send_events(self, batch):
            print("x" * 5_000_000)
            for i in range(50_000): print("line", i)
            return super().send_events(batch)
    """,
    "unsigned": "def requests(self, size, **more): return super().requests(size, headers={}, **more)",
    "speaks-on-the-line": """
        def send_events(self, batch):
            import os
            for number in range(3, 32):
                try: os.write(number, b"\\xff" * 64)
                except OSError: pass
            return super().send_events(batch)
    """,
    "curious": """
        def send_events(self, batch):
            import os, json
            return [Skip(item=0, reason=json.dumps(sorted(os.environ)))]
    """,
    "hangs-reading": """
        def read(self, request, response):
            while response.body == b"poison": pass
            if response.body == b"bad": raise RuntimeError("x")
            return super().read(request, response)
    """,
    "few-outcomes": "def read(self, request, response): return Outcomes(items=(Delivered(),))",
    "many-outcomes": "def read(self, request, response): return Outcomes(items=(Delivered(),) * 3)",
    "no-outcomes": "def read(self, request, response): return 'fine'",
    "leaky-reasons": """
        def read(self, request, response):
            secret = self.settings.token.get_secret_value()
            return Outcomes.every(request, Rejected(reason=f"no {secret}" + "x" * 5000))
    """,
    "takes-jobs": """
        def read(self, request, response):
            from headrace_sdk import Pending
            if response.status == 202:
                return Outcomes.every(request, Pending(job="j1", after_s=0.1))
            return super().read(request, response)
        def poll(self, job):
            return self.requests(job.items, method="GET", url=f"{self.settings.url}?job={job.id}", body=b"")[0]
        def check(self):
            from headrace_sdk import Check
            yield Check(title="May write", request=self.requests(0, method="GET", body=b"")[0])
        def read_check(self, check, response):
            return "" if response.status == 200 else f"no right with {self.settings.token.get_secret_value()}"
        def lists(self, page=""):
            return self.requests(0, method="GET", url=f"{self.settings.url}?page={page}", body=b"")[0]
        def create_list(self, name):
            return self.requests(0, body=name.encode())[0]
        def read_lists(self, request, response):
            from headrace_sdk import Lists, VendorList
            if response.status == 401:
                raise AuthError("refused")
            found = response.json_object()
            lists = tuple(VendorList(id=one["id"], name=one["name"], size=one.get("size")) for one in found["lists"])
            return Lists(lists=lists, next_page=found.get("next", ""))
    """,
    "polls-wrongly": "def poll(self, job): return self.requests(job.items + 1)[0]",
    "empty-key": "def rows(self, member): return [Row(key='', data=1)]",
    "same-rows": "def rows(self, member): return [Row.of(1), Row.of(1)]",
}
"""What is wrong with each connector of the distribution that `install_callers` makes: the body of its class."""


def install_callers(folder: Path, *names: str) -> None:
    """Put the distribution "zoo" into a folder, whose connectors load and then go wrong when they are called."""
    code = [_GOOD.partition("@hookimpl")[0]]
    for name in names or CALL_FAULTS:
        code.append(f"class {_class_name(name)}(Zoo):\n" + textwrap.indent(textwrap.dedent(CALL_FAULTS[name]), "    "))
        code.append("    pass\n")
    factories = {name: f"zoo:{_class_name(name)}" for name in names or CALL_FAULTS}
    factories |= {name: factory for name, factory in _NO_FACTORIES.items() if name in factories}
    code.append("@hookimpl\ndef headrace_connectors():\n")
    code.append(f"    return [manifest(name=name, factory=factory) for name, factory in {factories!r}.items()]\n")
    write(folder, "zoo", "\n".join(code))


def _class_name(name: str) -> str:
    return "".join(map(str.capitalize, name.split("-")))


def install(folder: Path, *names: str) -> None:
    """Put plugins into a folder as pip would: a module and a .dist-info each. "good" is the one without a fault."""
    for name in names:
        source = _GOOD if name.startswith("good") else LOAD_FAULTS[name]
        write(folder, f"zoo-{name}", source, connector=name)


def write(
    folder: Path, distribution: str, source: str, *, connector: str = "", group: str = "headrace.plugins"
) -> None:
    """Put one distribution into a folder.

    Args:
        folder: Where to; a folder of a search path.
        distribution: Its name; the module is called so with underscores.
        source: Code of its module; MODULE and NAME in it stand for the module's and the connector's name.
        connector: Name of the connector; that of the distribution when empty.
        group: Group of its entry point.
    """
    module = distribution.replace("-", "_")
    text = textwrap.dedent(source).replace("MODULE", module).replace("NAME", connector or distribution)
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{module}-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{connector or distribution} = {module}\n")
