"""Plugins are found by their metadata alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headrace.plugins.discovery import InstalledPlugin, discover
from headrace.plugins.options import Options
from tests.support import node_plugin, plugin_zoo


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


def test_commands_are_found_in_their_folders(tmp_path: Path) -> None:
    plugin_zoo.write(tmp_path, "b-plugin", "")
    good = node_plugin.install(tmp_path, name="Good_One", said={"command": ["node", "x.mjs"]})
    folders = [str(good), str(node_plugin.install(tmp_path, name="c-plugin"))]
    plugins, failures = discover(path=[str(tmp_path)], folders=folders)
    assert [plugin.name for plugin in plugins] == ["b-plugin", "c-plugin", "good-one"]
    assert plugins[2] == InstalledPlugin("good-one", "1.0.0", (), ("node", "x.mjs"), good)
    assert failures == []
    plugins, failures = discover(["good.one", "gone"], path=[str(tmp_path)], folders=folders)
    assert [plugin.name for plugin in plugins] == ["good-one"]
    assert [failure.plugin for failure in failures] == ["gone"]


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ({"version": None}, "version: Field required"),
        ({"name": "../up"}, "name: String should match"),
        ({"version": ""}, "version: String should have at least 1 character"),
        ({"api": 1}, "api: Input should be a valid string"),
        ({"api": "9.0"}, "written for plugin API 9, this platform has 1.0"),
        ({"command": "node plugin.mjs"}, "command: Input should be a valid list"),
        ({"command": []}, "command: List should have at least 1 item"),
        ({"command": [""]}, "command.0: String should have at least 1 character"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_command_whose_file_is_wrong_is_told_by_its_key(tmp_path: Path, said: dict[str, object], part: str) -> None:
    folder = node_plugin.install(tmp_path, said=said)
    plugins, (failure,) = discover(path=[], folders=[str(folder)])
    assert plugins == []
    assert part in failure.reason


def test_a_command_without_a_file_or_with_a_name_that_is_taken_is_told(tmp_path: Path) -> None:
    plugin_zoo.write(tmp_path, "taken", "")
    for name, content in (("empty", None), ("no-toml", b"name = "), ("no-text", b"\xff\xfe")):
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "headrace-plugin.toml").write_bytes(content)
    folders = [*(str(tmp_path / name) for name in ("empty", "no-toml", "no-text"))]
    folders.append(str(node_plugin.install(tmp_path, name="taken")))
    plugins, failures = discover(path=[str(tmp_path)], folders=folders)
    assert [plugin.entry_points for plugin in plugins] == [(("taken", "taken"),)]
    reasons = {failure.plugin: failure.reason for failure in failures}
    assert "headrace-plugin.toml cannot be read: No such file" in reasons["empty"]
    assert "headrace-plugin.toml cannot be read" in reasons["no-toml"]
    assert "headrace-plugin.toml cannot be read" in reasons["no-text"]
    assert reasons["taken"] == "there is another plugin of this name"


def test_the_environment_says_which_plugins_and_how() -> None:
    assert Options.of_environment({}) == Options(None, (), in_process=False)
    environment = {
        "HEADRACE_PLUGINS": " webhook, acme,",
        "HEADRACE_PLUGIN_FOLDERS": "/a, /b",
        "HEADRACE_PLUGINS_IN_PROCESS": "True",
    }
    assert Options.of_environment(environment) == Options(("webhook", "acme"), ("/a", "/b"), in_process=True)
    assert Options.of_environment({"HEADRACE_PLUGINS": ""}).plugins == ()
    with pytest.raises(ValueError, match="must be true or false"):
        Options.of_environment({"HEADRACE_PLUGINS_IN_PROCESS": "perhaps"})
