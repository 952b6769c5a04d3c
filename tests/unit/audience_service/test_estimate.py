"""Sizes that are estimated from a sample of people, and the samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from headrace_audience.answers.estimate import Estimate, estimate
from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.samples import EVERYBODY, SHARES, sample_of

from headrace.domain.ids import profile_id
from tests.support.resolved import event


def test_everybody_is_no_estimate() -> None:
    assert estimate(17, 1.0) == Estimate(17, 17, 17)


def test_the_interval_is_that_of_the_score_test() -> None:
    """All sizes of which as many found are less than 1.96 standard deviations off."""
    for found in (0, 1, 7, 250, 8_000):
        for share in (1 / 256, 1 / 16, 1 / 4):
            low, high = estimate(found, share)[1:]
            sizes = np.arange(found, int(found / share * 2 + 3_000))
            off = np.abs(found - sizes * share)
            inside = sizes[off <= 1.959964 * np.sqrt(sizes * share * (1 - share)) + 1e-12]
            assert (low, high) == (inside.min(), inside.max()), (found, share)


@pytest.mark.parametrize("size", [1_000, 10_000, 60_000])
def test_about_95_of_100_intervals_hold_the_size(size: int) -> None:
    share = 1 / 64
    found = np.random.default_rng(7).binomial(size, share, 4_000)
    intervals = [estimate(int(n), share) for n in found]
    right = sum(low <= size <= high for _, low, high in intervals) / len(intervals)
    assert 0.93 < right < 0.995


def test_samples_are_nested_and_hold_their_share_of_people() -> None:
    samples = np.array([sample_of(profile_id("acme", f"m{n}")) for n in range(60_000)])
    for sample, share in enumerate(SHARES):
        assert (samples <= sample).mean() == pytest.approx(share, rel=0.2)
    assert samples.max() == EVERYBODY


def test_each_sample_of_a_large_file_can_be_read_without_the_rest(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    rows = layout.event_table([event(profile_id("acme", str(n % 2_000)), "Viewed") for n in range(20_000)])
    files.write("large.parquet", rows, layout.SORT_KEYS[layout.EVENTS])
    written = pq.ParquetFile(files.full_path("large.parquet"))
    place = next(n for n, column in enumerate(written.schema.names) if column == "sample")
    groups = [written.metadata.row_group(n) for n in range(written.metadata.num_row_groups)]
    spans = [(g.column(place).statistics.min, g.column(place).statistics.max) for g in groups]
    assert spans == [(sample, sample) for sample in range(EVERYBODY + 1)]
    assert written.read().num_rows == 20_000
