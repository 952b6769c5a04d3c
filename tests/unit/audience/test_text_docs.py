"""The examples of docs/reference/audience-text.md mean what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from headrace_audience.language.text.printing import to_text
from headrace_audience.language.text.reading import from_text

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "audience-text.md").read_text()
CONDITIONS = re.findall(r"^\| `([^`]+)` \| `(\{[^`]+\})` \|$", PAGE, re.MULTILINE)
WINDOWS = re.findall(r"^\| `((?:in last|since|between) [^`]+)` \| `([^`]+)` \|$", PAGE, re.MULTILINE)


def test_the_page_has_examples() -> None:
    assert len(CONDITIONS) == 16
    assert len(WINDOWS) == 4


@pytest.mark.parametrize(("text", "raw"), CONDITIONS)
def test_conditions(text: str, raw: str) -> None:
    assert from_text(text) == {"where": json.loads(raw)}
    assert to_text({"where": json.loads(raw)}) == text


@pytest.mark.parametrize(("text", "raw"), WINDOWS)
def test_windows(text: str, raw: str) -> None:
    assert from_text(f"performed A {text}") == {"where": {"event": "A", **json.loads(f"{{{raw}}}")}}


def test_the_first_example_and_the_one_in_a_file() -> None:
    examples = re.findall(r"^```\n(performed [^`]+)```", PAGE, re.MULTILINE)
    files = re.findall(r"definition: >\n((?:  .+\n)+)", PAGE)
    assert len(examples) == len(files) == 1
    for text in (*examples, *files):
        assert set(from_text(text)["where"]) == {"all"}
