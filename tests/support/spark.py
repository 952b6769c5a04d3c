"""Spark in local mode for tests: one for a test file, because it takes seconds to start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from headrace_audience.distributed.spark import SparkMissing, spark_context

if TYPE_CHECKING:
    from pyspark import SparkContext

MISSING = "the batch evaluator on Spark was NOT tested: {error}"


@contextmanager
def local_spark() -> Iterator[SparkContext]:
    """Spark with two workers and little memory. Where it cannot be started the test is skipped, in CI it fails."""
    config = {"spark.driver.memory": "1g", "spark.python.worker.memory": "256m"}
    try:
        with spark_context("local[2]", config=config) as context:
            yield context
    except SparkMissing as error:
        said = MISSING.format(error=error)
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
