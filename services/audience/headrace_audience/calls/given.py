"""Definitions as callers give them: read, or refused with the place of the fault."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

from headrace.domain.definitions import DefinitionError
from headrace.rpc.errors import INVALID_ARGUMENT, ApiError, invalid_argument, invalid_arguments
from headrace_audience.language.definition import Definition
from headrace_audience.language.places import places_of
from headrace_audience.language.sense import parse_given
from headrace_audience.language.text.reading import ReadText, TextError, is_json, read_text

SHORT = 2_000
"""Texts of so many characters are read at once; longer ones, which take up to seconds, in a thread, one at a time."""
_reader = ThreadPoolExecutor(1, thread_name_prefix="definitions")


@dataclass(frozen=True)
class Given:
    """A definition that somebody gave, as text or JSON."""

    source: str
    """It as JSON; of what was given as JSON nothing is known yet."""
    field: str
    """What the request calls it."""
    text: ReadText | None = None
    """Of one that was given as text."""

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Let errors inside of the block that stand at a path of the JSON stand at their place in the text."""
        try:
            yield
        except ApiError as error:
            if self.text is None or error.reason != INVALID_ARGUMENT:
                raise
            raise invalid_arguments([self._placed(self.text, *one) for one in error.violations]) from error

    def _placed(self, text: ReadText, field: str, description: str) -> tuple[str, str]:
        inside, _, path = field.partition(f"{self.field}.")
        if inside or not path:
            return field, description
        line, column = text.place_of(path)
        return self.field, f"line {line}, column {column}: {description}"


async def read(definition: str, field: str = "audience.definition") -> Given:
    """A definition that may be in text form. Raises ApiError INVALID_ARGUMENT that names the place in the text."""
    try:
        if not definition or is_json(definition := definition.removeprefix("\ufeff")):
            return Given(definition, field)
        if len(definition) <= SHORT:
            text = read_text(definition, parse_given)
        else:
            text = await asyncio.get_running_loop().run_in_executor(_reader, read_text, definition, parse_given)
    except TextError as error:
        raise invalid_argument(field, str(error)) from None
    return Given(json.dumps(text.definition, ensure_ascii=False), field, text)


def looks(name: str) -> str:
    """What people see of a name: those of which it is the same are taken for one another.

    Without case, with characters in one form (NFKC), single spaces, and none of those that are not seen.
    """
    seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return " ".join(seen.split()).casefold()


def parse(definition: str, field: str = "audience.definition") -> Definition:
    """A definition from JSON. Raises ApiError INVALID_ARGUMENT that names the place."""
    if not definition:
        raise invalid_argument(field, "is required: a definition as text or as JSON")
    try:
        parsed = parse_given(definition)
    except DefinitionError as error:
        raise definition_fault(error, field) from None
    return parsed


def definition_fault(error: DefinitionError, field: str = "audience.definition") -> Exception:
    """The error that a caller gets for a wrong definition: the field is the place in it."""
    return invalid_argument(f"{field}.{error.path}" if error.path else field, error.reason)


def check_known(
    source: str, known: Mapping[str, Definition], parsed: Definition, field: str = "audience.definition"
) -> None:
    """Refuse a definition that names an audience that does not exist.

    Raises:
        ApiError: INVALID_ARGUMENT that names the place of each.
    """
    unknown = parsed.references - known.keys()
    if not unknown:
        return
    for path, audience_id in places_of(json.loads(source), "audience"):
        if audience_id in unknown:
            close = get_close_matches(audience_id, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise invalid_argument(f"{field}.{path}", f"there is no audience {audience_id!r} in this workspace{hint}")
    raise AssertionError("a reference stands somewhere in the definition")
