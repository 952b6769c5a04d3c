from __future__ import annotations

import asyncio

from headrace.service import Loops, background


async def test_a_loop_that_fails_starts_again() -> None:
    runs = 0
    done = asyncio.Event()

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ConnectionError("the store is away")
        done.set()

    async with background() as loops:
        loops.start("test", loop)
        await done.wait()
        await asyncio.sleep(0)
        assert loops.failing == frozenset()
    assert runs == 3


async def test_a_failing_loop_is_named() -> None:
    async def loop() -> None:
        raise ValueError("always")

    async with background() as loops:
        loops.start("broken", loop)
        while not loops.failing:
            await asyncio.sleep(0.01)
        assert loops.failing == {"broken"}


async def test_closing_waits_until_a_loop_has_cleaned_up() -> None:
    cleaned = False
    started = asyncio.Event()

    async def loop() -> None:
        nonlocal cleaned
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned = True

    loops = Loops()
    loops.start("test", loop)
    await started.wait()
    await loops.close()
    assert cleaned


async def test_a_loop_that_loses_a_cancellation_ends_all_the_same() -> None:
    lost = 0

    async def loop() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    async with background() as loops:
        loops.start("test", loop)
        await asyncio.sleep(0)
    assert lost == 1
