"""`headrace plugin new`: what it writes installs, lints, types, passes its own tests and makes requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.authoring.new import NotMade, Takes, new_destination
from headrace.cli.main import main
from headrace.plugins import PluginHost
from headrace.plugins.render import render

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a program of this environment; fails with all that it said."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[Takes, Path]:
    root = tmp_path_factory.mktemp("new")
    folders = {takes: root / takes.value for takes in Takes}
    for takes, folder in folders.items():
        new_destination(folder, f"acme-{takes.value}", title="Acme & Co", takes=takes)
    return folders


@pytest.fixture(scope="module")
def site(made: dict[Takes, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where they are installed."""
    folder = tmp_path_factory.mktemp("site")
    run(
        BIN / "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python",
        sys.executable, "--target", folder, *made.values(), cwd=ROOT,
    )  # fmt: skip
    return folder


def test_they_lint_and_are_formatted(made: dict[Takes, Path]) -> None:
    run(BIN / "ruff", "check", "--no-cache", *made.values(), cwd=ROOT)
    run(BIN / "ruff", "format", "--no-cache", "--check", *made.values(), cwd=ROOT)


def test_they_are_typed(made: dict[Takes, Path]) -> None:
    """All of them in one run by the settings that they bring: reading pydantic and the SDK takes most of the time."""
    modules = [path for folder in made.values() for path in folder.glob("headrace_*/*.py")]
    tests = list(made[Takes.BOTH].glob("tests/*.py"))
    cache = ROOT / ".mypy_cache" / "template"
    run(
        BIN / "mypy", "--config-file", made[Takes.BOTH] / "pyproject.toml", "--cache-dir", cache, *modules, *tests,
        cwd=made[Takes.BOTH], MYPYPATH=os.pathsep.join(map(str, made.values())),
    )  # fmt: skip


def test_they_pass_their_own_tests(made: dict[Takes, Path], site: Path) -> None:
    """All of them in one run: starting pytest takes most of the time.

    Of the kit only what is about the files of each, and one check with items made by chance: the tutorial's test runs
    it whole.
    """
    config = made[Takes.BOTH] / "pyproject.toml"
    said = run(
        sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", config,
        "--rootdir", made[Takes.BOTH].parent, "-k", "test_destination or manifest or golden or accounted",
        *(folder / "tests" for folder in made.values()), cwd=ROOT,
        PYTHONPATH=os.pathsep.join(map(str, [*made.values(), site])), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    )  # fmt: skip
    assert "skipped" not in said
    for takes in Takes:
        assert f"{takes.value}/tests/test_destination.py" in said
        assert f"TestAcme{takes.value.capitalize()}::test_conforms[golden" in said


async def test_they_install_and_make_requests(made: dict[Takes, Path], site: Path) -> None:
    host = PluginHost(path=[str(site)])
    await host.start()
    try:
        assert host.failures() == ()
        assert sorted(host.connectors()) == ["acme-both", "acme-events", "acme-members"]
        samples = made[Takes.BOTH] / "samples"
        rendered = {}
        for kind in ("events", "members"):
            rendered[kind] = await render(
                host,
                connector="acme-both",
                settings=json.loads((samples / "settings.json").read_text()),
                now_us=1_770_000_000_000_000,
                events=(samples / "events.ndjson").read_text().splitlines() if kind == "events" else None,
                members=(samples / "members.ndjson").read_text().splitlines() if kind == "members" else None,
            )
    finally:
        await host.close()
    urls = [request["url"].rpartition("/v1")[2] for kind in rendered.values() for request in kind.requests]
    assert urls == ["/events", "/lists/17/remove", "/lists/17/add"]
    assert rendered["events"].requests[0]["headers"]["Authorization"] == "Bearer ********"
    assert rendered["events"].skipped == [{"message_id": "m-2", "reason": "is no e-mail address"}]


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    assert main(["plugin", "new", "acme-shop", "--folder", str(folder), "--takes", "both", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(folder) and "samples/members.ndjson" in said["files"]
    assert 'title="Acme Shop"' in (folder / "headrace_destination_acme_shop" / "destination.py").read_text()


def test_sources_are_refused_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "new", "acme", "--kind", "source", "--folder", str(tmp_path / "a")]) == 2
    assert "sources come with the source SDK" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["", "Acme", "a--b", "-a", "a_b", "1a", "a" * 64, "../a", "class"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotMade, match="a name has"):
        new_destination(tmp_path / "a", name)


@pytest.mark.parametrize("title", ['"', "a\nb", "{{ name }}", "x" * 101, "\\"])
def test_a_title_that_would_break_the_code_is_refused(tmp_path: Path, title: str) -> None:
    with pytest.raises(NotMade, match="a title has"):
        new_destination(tmp_path / "a", "acme", title=title)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(NotMade, match="is there already"):
        new_destination(tmp_path, "acme")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
