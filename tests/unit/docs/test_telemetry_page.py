"""The page of metrics against the instruments that the code really makes, not only against its source."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/reference/telemetry.md"

_LOAD_ALL = """
import importlib, json, pkgutil
from headrace.telemetry import metrics

made = {}
def recording(kind):
    real = getattr(metrics, kind)
    def make(name, description, *args, **options):
        made[name] = [kind, description]
        return real(name, description, *args, **options)
    setattr(metrics, kind, make)
for kind in ("counter", "histogram"):
    recording(kind)

from headrace.service import SERVICES
import headrace.rpc.server, headrace.plugins.process
for service in SERVICES:
    package = importlib.import_module(f"headrace_{service}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(json.dumps(made))
"""


def test_every_counter_and_histogram_that_is_made_stands_in_the_page() -> None:
    done = subprocess.run([sys.executable, "-c", _LOAD_ALL], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    rows = re.findall(
        r"^\| `(headrace_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    listed = {name: [kind, text] for name, kind, _, text in rows if kind != "gauge"}
    assert listed == {f"{n}_total" if kind == "counter" else n: [kind, text] for n, (kind, text) in made.items()}
    assert len(listed) > 25


def test_labels_never_name_what_is_personal() -> None:
    from headrace.telemetry.logs import is_sensitive

    labels = set(re.findall(r"^\| `(\w+)` \| [A-Z]", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"outcome", "connector"} <= labels
    assert not any(is_sensitive(label) or label.endswith("_id") for label in labels)
