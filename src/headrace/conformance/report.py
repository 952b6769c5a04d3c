"""What a run of the checks found: JSON for machines, with a schema, and rows for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from headrace.conformance.checks import Level

FORMAT = 1


class Result(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    """It did not hold, or it could not run."""
    WAIVED = "waived"
    """It did not hold, and the author's file says why that has to be."""
    NOT_DECLARED = "not declared"
    """The connector declares nothing that the check is about: nothing was looked at."""


class CheckResult(BaseModel):
    """One check.

    Attributes:
        id: Stable id.
        level: Its level.
        sentence: What must hold.
        result: How it ended.
        seen: What was seen.
        remedy: What to do; empty unless it failed.
    """

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Stable id of the check.")
    level: Level = Field(description="Level of the check.")
    sentence: str = Field(description="What must hold.")
    result: Result = Field(description="How it ended; a check that could not run has failed.")
    seen: str = Field(description="What was seen.")
    remedy: str = Field(description="What to do; empty unless it failed.")


class Report(BaseModel):
    """A run of checks over one connector.

    Attributes:
        format: Version of this form.
        connector: Name of the connector.
        plugin: Distribution that offers it; empty when it could not be loaded.
        version: Version of that distribution.
        api: Version of the plugin interface that it was written for.
        seed: Seed of the test data.
        conforms: True when no check failed.
        checks: The checks in their order.
    """

    model_config = ConfigDict(frozen=True)

    format: int = Field(FORMAT, description="Version of this form: 1.")
    connector: str = Field(description="Name of the connector.")
    plugin: str = Field(description="Distribution that offers it; empty when it could not be loaded.")
    version: str = Field(description="Version of that distribution.")
    api: str = Field(description="Version of the plugin interface that it was written for.")
    seed: int = Field(description="Seed of the test data.")
    conforms: bool = Field(description="True when no check failed.")
    checks: tuple[CheckResult, ...] = Field(description="The checks in their order.")

    def failed(self) -> list[CheckResult]:
        """The checks that failed."""
        return [one for one in self.checks if one.result is Result.FAILED]

    def summary(self) -> str:
        """Numbers in a sentence."""
        counted = {result: sum(one.result is result for one in self.checks) for result in Result}
        return (
            f"{self.connector}: {counted[Result.PASSED]} checks passed, {counted[Result.FAILED]} failed, "
            + (f"{counted[Result.WAIVED]} waived, " if counted[Result.WAIVED] else "")
            + f"{counted[Result.NOT_DECLARED]} about what is not declared"
        )


def schema() -> dict[str, Any]:
    """JSON Schema of a report."""
    return Report.model_json_schema()


def rows(checks: Iterable[CheckResult]) -> Sequence[Sequence[str]]:
    """Rows of a table: id, result, sentence, what was seen, what to do."""
    return [[one.id, one.result.value, one.sentence, one.seen, one.remedy] for one in checks]
