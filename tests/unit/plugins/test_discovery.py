"""Plugins are found by their metadata alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headrace.plugins.discovery import InstalledPlugin, discover, wanted_in
from tests.support import plugin_zoo


def test_plugins_are_found_without_importing_them(tmp_path: Path) -> None:
    plugin_zoo.write(tmp_path, "b-plugin", "raise RuntimeError", connector="bee")
    plugin_zoo.write(tmp_path, "A_Plugin", "raise RuntimeError", connector="cee")
    plugin_zoo.write(tmp_path, "unrelated", "raise RuntimeError", group="console_scripts")
    plugins, failures = discover(path=[str(tmp_path)])
    assert plugins == [
        InstalledPlugin("a-plugin", "1.2.3", (("cee", "A_Plugin"),)),
        InstalledPlugin("b-plugin", "1.2.3", (("bee", "b_plugin"),)),
    ]
    assert failures == []
    assert "b_plugin" not in sys.modules


def test_the_first_of_two_of_a_name_counts(tmp_path: Path) -> None:
    for folder, connector in (("first", "one"), ("second", "two")):
        (tmp_path / folder).mkdir()
        plugin_zoo.write(tmp_path / folder, "same", "", connector=connector)
    plugins, _ = discover(path=[str(tmp_path / "first"), str(tmp_path / "second")])
    assert [plugin.entry_points for plugin in plugins] == [(("one", "same"),)]


@pytest.mark.parametrize("wanted", ["b-plugin", "B_Plugin", "bee"])
def test_wanted_names_are_those_of_distributions_or_entry_points(tmp_path: Path, wanted: str) -> None:
    plugin_zoo.write(tmp_path, "b-plugin", "", connector="bee")
    plugin_zoo.write(tmp_path, "c-plugin", "", connector="cee")
    plugins, failures = discover([wanted, " "], path=[str(tmp_path)])
    assert [plugin.name for plugin in plugins] == ["b-plugin"]
    assert failures == []


def test_broken_metadata_spoils_nothing(tmp_path: Path) -> None:
    plugin_zoo.write(tmp_path, "fine", "")
    for name, text in (("broken", "[headrace.plugins]\nno equals sign here\n"), ("other", "[x]\nno equals sign\n")):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(text)
    (tmp_path / "nameless-1.dist-info").mkdir()
    plugins, failures = discover(path=[str(tmp_path)])
    assert [plugin.name for plugin in plugins] == ["fine"]
    assert [(failure.plugin, failure.reason) for failure in failures] == [
        ("broken", "its entry_points.txt cannot be read")
    ]


def test_the_plugins_of_this_repository_are_installed() -> None:
    plugins, failures = discover(["webhook", "meta-audience"])
    assert [plugin.name for plugin in plugins] == ["headrace-destination-meta-audience", "headrace-destination-webhook"]
    assert failures == []


def test_the_environment_names_plugins() -> None:
    assert wanted_in({}) is None
    assert wanted_in({"HEADRACE_PLUGINS": ""}) == []
    assert wanted_in({"HEADRACE_PLUGINS": " webhook, acme,"}) == ["webhook", "acme"]
