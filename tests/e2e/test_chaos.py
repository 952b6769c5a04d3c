"""Twenty rounds of SIGKILL at random processes and stores under load; afterwards the account must be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import VICTIMS, ChaosRun


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_nothing_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    run = ChaosRun(tmp_path, seed=20)
    account = await run.play(rounds=20)
    assert set(run.killed) == set(VICTIMS)
    assert account.events > 500
    assert account.problems == []
