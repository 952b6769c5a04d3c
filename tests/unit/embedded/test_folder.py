from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.embedded.errors import EmbeddedError, FolderInUse, WrongOptions
from headrace.embedded.folder import DataFolder, read_json, write_private_json

_HOLD = """
import sys
from pathlib import Path
from headrace.embedded.folder import DataFolder
folder = DataFolder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_names_who_uses_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FolderInUse) as refused:
            DataFolder(tmp_path)
        assert str(refused.value) == (
            f"data folder {tmp_path} is in use by process {holder.pid}: stop it or choose another by --data-dir"
        )
        holder.kill()
        holder.wait()
        DataFolder(tmp_path).release()  # the lock went with the process, however it ended
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()


def test_a_released_folder_can_be_taken_again(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "new" / "folder")
    with pytest.raises(FolderInUse):
        DataFolder(tmp_path / "new" / "folder")
    folder.release()
    folder.release()
    DataFolder(tmp_path / "new" / "folder").release()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match=r"data folder .*/file/data cannot be used \(Not a directory\)"):
        DataFolder(tmp_path / "file" / "data")


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    secrets = folder.secrets()
    folder.release()
    assert len(secrets.service_token) >= 32
    assert len(base64.b64decode(secrets.master_key)) == 32
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    again = DataFolder(tmp_path)
    assert again.secrets() == secrets
    again.release()


@pytest.mark.parametrize("content", ["{", "[]", "", '{"service_token": "x"}'])
def test_damaged_secrets_are_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets.json").write_text(content)
    folder = DataFolder(tmp_path)
    with pytest.raises(EmbeddedError, match=r"secrets\.json (is damaged|lacks 'master_key'): restore it"):
        folder.secrets()
    assert (tmp_path / "secrets.json").read_text() == content
    folder.release()


def test_a_private_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    path.write_text("old, and open to all")
    path.chmod(0o644)
    old = os.umask(0)
    try:
        write_private_json(path, {"a": 1})
    finally:
        os.umask(old)
    assert json.loads(path.read_text()) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        write_private_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["ready.json"]


def test_no_file_is_no_content(tmp_path: Path) -> None:
    assert read_json(tmp_path / "missing.json") is None


def test_what_the_data_was_made_with_cannot_change(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.require_layout(partitions=64, event_partitions=8)
    folder.require_layout(partitions=64, event_partitions=8)
    with pytest.raises(WrongOptions, match=r"^HEADRACE_PARTITIONS is 32, but .* was made with 64, .*: set it so"):
        folder.require_layout(partitions=32, event_partitions=8)
    folder.release()
