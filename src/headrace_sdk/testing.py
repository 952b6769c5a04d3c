"""The conformance kit for the tests of a connector's author.

A whole test file:

    from headrace_sdk.testing import DestinationConformance

    class TestAcme(DestinationConformance):
        connector = "acme"

Each check is a test of its own, `test_conforms[behaviour.rate-limited]`. Beside the test file, a folder `conformance/`
has `vendor.json` (settings for the checks, and how the vendor answers) and `cases/` (golden requests, written with
HEADRACE_UPDATE_GOLDEN=1). docs/reference/conformance.md lists all checks.

Needs what `pip install 'headrace[testing]'` brings. Nothing else of the SDK imports this module, or the platform.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from headrace.conformance import CHECKS, EXAMPLES, Bench, Options, Result, asked, run_check

__all__ = ["DestinationConformance"]


class DestinationConformance:
    """All checks that a destination connector declares, as tests.

    Attributes:
        connector: Name of the connector.
        folder: Folder with `vendor.json` and `cases/`; None is `conformance` beside the test file.
        settings: Settings in place of those of `vendor.json`.
        seed: Seed of the test data.
        examples: Batches that are made by chance for each property.
    """

    connector: ClassVar[str]
    folder: ClassVar[Path | None] = None
    settings: ClassVar[Mapping[str, Any] | None] = None
    seed: ClassVar[int] = 0
    examples: ClassVar[int] = EXAMPLES
    _bench: ClassVar[Bench | None] = None

    @classmethod
    def new_bench(cls) -> Bench:
        """A bench for the connector; nothing is started yet."""
        options = Options(
            folder=cls.folder or Path(inspect.getfile(cls)).parent / "conformance",
            settings=cls.settings,
            seed=cls.seed,
            examples=cls.examples,
            update=bool(os.environ.get("HEADRACE_UPDATE_GOLDEN")),
        )
        return Bench(cls.connector, options)

    @classmethod
    def teardown_class(cls) -> None:
        """End what the tests started."""
        if cls._bench is not None:
            cls._bench.close()
            cls._bench = None

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """One test for each check that the connector is asked, in their order; for all when it cannot be loaded."""
        if "check_id" in metafunc.fixturenames:
            with cls.new_bench() as bench:
                metafunc.parametrize("check_id", [check.id for check in asked(bench)])

    def test_conforms(self, check_id: str) -> None:
        """The connector passes the check."""
        cls = type(self)
        if cls._bench is None:
            cls._bench = cls.new_bench()
        result = run_check(cls._bench, CHECKS[check_id])
        if result.result is Result.FAILED:
            pytest.fail(f"{result.id}: {result.sentence}\n  seen: {result.seen}\n  do: {result.remedy}", pytrace=False)
