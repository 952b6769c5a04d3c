"""`headrace plugin check`: the report on standard output, whatever the connector prints, and its exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from headrace.cli.main import main
from tests.support.plugin_zoo import write

_SOURCE = """
from pydantic import BaseModel, ConfigDict, Field as Setting
from headrace_sdk import *

class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    account: str = Setting(min_length=3, title="Account", description="Name of the account.")

class Loud(Destination[Settings]):
    manifest = None

    def send_events(self, batch):
        print("sends", len(batch.events))
        yield Request(method="POST", url="https://vendor.example/", body=b"{}", items=tuple(range(len(batch.events))))

    def read(self, request, response):
        return Outcomes.every(request, Delivered())

@hookimpl
def headrace_connectors():
    return [Manifest(name="NAME", title="Loud", description="Prints.", factory="MODULE:Loud", settings=Settings,
                     capabilities=frozenset({Capability.FORWARDING}), batch=BatchPolicy(max_items=10))]
"""


@pytest.fixture(autouse=True)
def loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "loud-zoo", _SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loud_zoo", raising=False)


def test_the_report_is_json_whatever_the_connector_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    arguments = ["--level", "manifest", "--level", "hygiene", "--json", "--report", str(file)]
    assert main(["plugin", "check", "loud-zoo", *arguments]) == 1
    found = json.loads(capsys.readouterr().out)
    assert json.loads(file.read_text()) == found
    assert (found["connector"], found["plugin"], found["version"], found["conforms"]) == (
        "loud-zoo", "loud-zoo", "1.2.3", False,
    )  # fmt: skip
    assert [one["id"] for one in found["checks"] if one["result"] == "failed"] == ["hygiene.quiet"]


def test_a_table_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "check", "loud-zoo", "--level", "manifest"]) == 0
    assert "loud-zoo: 8 checks passed, 0 failed, " in capsys.readouterr().out


def test_a_level_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "check", "loud-zoo", "--level", "manners"]) == 2
    assert "there is no level manners" in capsys.readouterr().err
