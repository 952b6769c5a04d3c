"""docs/reference/audience-definitions.md says what the parser does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from headrace_audience.language.parser import parse_definition

from headrace.domain.definitions import OPS, DefinitionError

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "audience-definitions.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
WINDOWS = re.findall(r'^\| `("(?:within|since|between)".*?)` \|', PAGE, re.MULTILINE)
REFUSED = re.findall(r"^\| `(\{.*?\})` \| `(.*?)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_definitions_or_conditions(example: str) -> None:
    raw = json.loads(example)
    parse_definition(raw if {"kind", "of"} & raw.keys() else {"where": raw})


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_are_windows(window: str) -> None:
    parse_definition(f'{{"where": {{"event": "A", {window}}}}}')


@pytest.mark.parametrize(("definition", "error"), REFUSED)
def test_refused_definitions_give_the_error_that_is_shown(definition: str, error: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        parse_definition(definition)
    assert str(raised.value) == error


def test_the_page_has_examples_and_every_comparison() -> None:
    assert len(EXAMPLES) >= 10
    assert len(WINDOWS) == 6
    assert len(REFUSED) == 20
    comparisons = PAGE.split("## Tests of values")[1].split("## When")[0]
    assert [op for op in OPS if f"`{op}`" not in comparisons] == []
