"""Golden files: what was written once and looked at, compared from then on. UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "golden"


def check_golden(name: str, value: Any) -> None:
    """Compare a JSON value with tests/golden/NAME.json."""
    path = _FOLDER / f"{name}.json"
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; look at it, then UPDATE_GOLDEN=1 writes it"
