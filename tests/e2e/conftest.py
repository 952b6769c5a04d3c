"""One whole platform for the end-to-end tests, with a collector of its spans and a vendor to deliver to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli import main
from tests.support.countries import write_table
from tests.support.otlp import Collector, collecting
from tests.support.up import Run, Up, platform_up


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    """Receives the spans of the whole platform over OTLP."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="package")
def environment(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a platform whose spans are collected, and that waits for nothing."""
    countries = write_table(tmp_path_factory.mktemp("countries") / "countries.mmdb")
    return {
        "HEADRACE_COUNTRY_TABLE": str(countries),
        "HEADRACE_TRUSTED_PROXIES": "127.0.0.1",
        "HEADRACE_ALLOW_PRIVATE_DESTINATIONS": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "HEADRACE_DELETION_WAIT_HOURS": "0",
        "HEADRACE_DELETION_SECONDS": "0.2",
        "HEADRACE_ARCHIVE_INTERVAL_SECONDS": "1",
        "HEADRACE_ARCHIVE_SETTLE_SECONDS": "1",
        "HEADRACE_AUDIENCE_SNAPSHOT_SECONDS": "2",
    }


@pytest.fixture(scope="package")
def up(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Up]:
    """The platform, as `headrace up` starts it."""
    with platform_up(Path(tmp_path_factory.mktemp("up")), environment) as running:
        yield running


@pytest.fixture
def run(up: Up, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands on the platform, in this process: a process of its own would load all the code for each."""
    monkeypatch.setenv("HEADRACE_READY_FILE", str(up.ready_file))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.main(arguments)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call
