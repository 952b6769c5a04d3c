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

from headrace.conformance import CHECKS, Bench, Options, Result, run_check

__all__ = ["DestinationConformance"]


class DestinationConformance:
    """All checks that a destination connector declares, as tests.

    Attributes:
        connector: Name of the connector.
        folder: Folder with `vendor.json` and `cases/`; None is `conformance` beside the test file.
        settings: Settings in place of those of `vendor.json`.
        seed: Seed of the test data.
        examples: Items that are made by chance for each property.
    """

    connector: ClassVar[str]
    folder: ClassVar[Path | None] = None
    settings: ClassVar[Mapping[str, Any] | None] = None
    seed: ClassVar[int] = 0
    examples: ClassVar[int] = 25
    _bench: ClassVar[Bench | None] = None

    @classmethod
    def bench(cls) -> Bench:
        """The bench, kept for all tests of the class."""
        if cls._bench is None:
            options = Options(
                folder=cls.folder or Path(inspect.getfile(cls)).parent / "conformance",
                settings=cls.settings,
                seed=cls.seed,
                examples=cls.examples,
                update=bool(os.environ.get("HEADRACE_UPDATE_GOLDEN")),
            )
            cls._bench = Bench(cls.connector, options)
        return cls._bench

    @classmethod
    def teardown_class(cls) -> None:
        """End what the tests started."""
        if cls._bench is not None:
            cls._bench.close()
            cls._bench = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each check, in their order."""
        if "check_id" in metafunc.fixturenames:
            metafunc.parametrize("check_id", list(CHECKS))

    def test_conforms(self, check_id: str) -> None:
        """The connector passes the check, or declares nothing that it is about."""
        result = run_check(self.bench(), CHECKS[check_id])
        if result.result is Result.FAILED:
            pytest.fail(f"{result.id}: {result.sentence}\n  seen: {result.seen}\n  do: {result.remedy}", pytrace=False)
