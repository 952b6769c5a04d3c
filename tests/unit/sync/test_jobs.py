"""Jobs at vendors: asked for until they end, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_sync.outlets import jobs
from headrace_sync.outlets.verdicts import Kind, Verdict

PENDING = Verdict(Kind.PENDING, "j", 202, 2.0)
DONE = Verdict(Kind.DELIVERED, code=200)


class Time:
    """A clock that goes on only by pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.now += seconds


async def run(
    verdicts: Sequence[Verdict],
    answers: Sequence[Sequence[Verdict]],
    *,
    gone: Sequence[int] = (),
    stop_after: int = 10_000,
) -> tuple[list[Verdict], Time, list[str]]:
    time, asked = Time(), list[str]()

    async def ask(job: str, size: int) -> Sequence[Verdict]:
        asked.append(f"{job}:{size}")
        return answers[min(len(asked), len(answers)) - 1]

    async def keep(places: Sequence[int]) -> set[int]:
        return set(places) - set(gone)

    found = await jobs.follow(
        verdicts, ask=ask, keep=keep, stops=lambda: len(asked) >= stop_after, pause=time.pause, clock=lambda: time.now
    )
    return found, time, asked


async def test_a_job_is_asked_for_at_growing_intervals() -> None:
    found, time, asked = await run([PENDING, DONE, PENDING], [[PENDING] * 2, [PENDING] * 2, [DONE] * 2])
    assert found == [DONE] * 3
    assert asked == ["j:2"] * 3
    assert time.pauses == [2.0, 3.0, 4.5]


async def test_a_job_may_end_in_another_one_which_is_asked_for_at_once() -> None:
    other = Verdict(Kind.PENDING, "k", 200, 0.0)
    rejected = Verdict(Kind.REJECTED, "no")
    found, time, asked = await run([PENDING, PENDING, DONE], [[other, DONE], [PENDING], [rejected]])
    assert found == [rejected, DONE, DONE]
    assert asked == ["j:2", "k:1", "j:1"]
    assert time.pauses == [2.0, 0.0, 2.0]


async def test_all_jobs_of_an_item_together_have_the_time_of_one() -> None:
    steps = [[Verdict(Kind.PENDING, str(step), 200, 30.0)] for step in range(100)]
    found, time, _ = await run([PENDING], steps)
    assert found[0].kind is Kind.LOST and time.now <= jobs.LONGEST_S + 30


async def test_items_of_a_job_may_end_differently_and_one_after_the_other() -> None:
    rejected = Verdict(Kind.REJECTED, "no")
    found, _, asked = await run([PENDING, PENDING], [[rejected, PENDING], [DONE, DONE]])
    assert found == [rejected, DONE]
    assert len(asked) == 2


async def test_what_could_not_be_asked_is_asked_again() -> None:
    away = [Verdict(Kind.LOST, "no answer")]
    found, _, asked = await run([PENDING], [away, [Verdict(Kind.UNTRIED)], [Verdict(Kind.PLUGIN)], [DONE]])
    assert found == [DONE]
    assert len(asked) == 4


async def test_a_job_that_never_ends_is_lost_after_a_while() -> None:
    found, time, _ = await run([PENDING], [[PENDING]])
    assert found == [Verdict(Kind.LOST, "the end of the vendor's job was not seen", 202)]
    assert jobs.LONGEST_S <= time.now <= jobs.LONGEST_S + 30.0
    assert max(time.pauses) == 30.0


async def test_what_is_somebody_elses_meanwhile_is_left_alone() -> None:
    found, _, asked = await run([PENDING, PENDING], [[DONE, DONE]], gone=[0])
    assert found == [Verdict(Kind.GONE), DONE]
    assert asked == ["j:2"]
    found, _, asked = await run([PENDING], [[DONE]], gone=[0])
    assert (found, asked) == ([Verdict(Kind.GONE)], [])


async def test_nothing_is_asked_when_all_ends() -> None:
    found, _, asked = await run([PENDING], [[PENDING]], stop_after=1)
    assert found[0].kind is Kind.LOST
    assert asked == ["j:1"]


async def test_several_jobs_are_followed_side_by_side() -> None:
    other = Verdict(Kind.PENDING, "k", 202, 2.0)
    found, _, asked = await run([PENDING, other], [[DONE]])
    assert found == [DONE, DONE]
    assert sorted(asked) == ["j:1", "k:1"]
