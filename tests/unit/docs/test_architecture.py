"""The collections in docs/architecture.md are those of the code, with the owners that the code gives them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def _constants(path: Path) -> dict[str, str]:
    """Constants of a module that are texts."""
    return {
        node.targets[0].id: str(node.value.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _subscripts(folder: Path) -> set[str]:
    """Names that a database is subscripted with, anywhere below a folder."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Subscript):
                continue
            base = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            name = node.slice.attr if isinstance(node.slice, ast.Attribute) else getattr(node.slice, "id", "")
            if base in {"db", "_db"}:
                found.add(name)
    return found


def _owned() -> dict[str, str]:
    """Collection to owner, as the code has it."""
    kernel = ROOT / "src/headrace"
    shared = {
        "the log": kernel / "storage/mongo/log.py",
        "each service for its own calls": kernel / "rpc/idempotency.py",
    }
    stores = {path.parent.name.removeprefix("headrace_"): path for path in ROOT.glob("services/*/headrace_*/store.py")}
    used = _subscripts(ROOT / "services") | _subscripts(kernel)
    return {
        collection: owner
        for owner, path in (shared | stores).items()
        for name, collection in _constants(path).items()
        if name in used
    }


def test_the_table_of_collections_is_complete() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert {collection: owner.partition(";")[0] for collection, owner, _, _ in rows} == _owned()
    assert len(rows) > 20


def test_documents_that_are_linked_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        if "node_modules" not in page.parts
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert missing == []
