"""How many random examples a test takes."""

from __future__ import annotations

import os


def examples(number: int) -> int:
    """A test's own number of examples, or `HEADRACE_TEST_EXAMPLES` times as many, to look for new ones."""
    return number * int(os.environ.get("HEADRACE_TEST_EXAMPLES", "1"))
