"""What a connector's author has to install beside the SDK: pluggy and pydantic, nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import headrace_sdk

ALLOWED = frozenset({"headrace_sdk", "pluggy", "pydantic"})
HOME = Path(headrace_sdk.__file__).parent


def imported_by(source: str) -> set[str]:
    """Top-level packages that a module's code names in an import, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0] if node.level == 0 else "headrace_sdk")
    return found


def test_the_sdk_imports_only_pluggy_pydantic_and_the_standard_library() -> None:
    # `testing` is for authors' tests alone, and needs what the extra of its name brings; nothing else imports it.
    modules = sorted(path for path in HOME.rglob("*.py") if path.name != "testing.py")
    assert len(modules) > 5
    for module in modules:
        strange = imported_by(module.read_text()) - ALLOWED - sys.stdlib_module_names
        assert not strange, f"{module.relative_to(HOME.parent)} imports {sorted(strange)}"


def test_importing_it_loads_none_of_the_platform() -> None:
    """Also not by a detour: what is loaded is what pluggy and pydantic bring."""
    code = "import json, sys, headrace_sdk; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    # What an interpreter loads before anything else: .pth files may bring modules of other distributions.
    at_start = json.loads(subprocess.check_output([sys.executable, "-c", code.replace(", headrace_sdk", "")]))
    brought = {name for name in set(loaded) - set(at_start) - ALLOWED if not name.startswith("_sysconfigdata")}
    assert brought - sys.stdlib_module_names <= {
        "annotated_types",
        "pydantic_core",
        "typing_extensions",
        "typing_inspection",
    }
