from __future__ import annotations

import json

import pytest

from headrace.demo.report import AUDIENCES
from headrace.demo.simulator import Story, simulate
from headrace.domain.times import DAY_US, HOUR_US, parse_time_us

NOW_US = 1_800_000_000_000_000


@pytest.fixture(scope="module")
def story() -> Story:
    return simulate(people=100, now_us=NOW_US)


def test_the_same_seed_tells_the_same_story(story: Story) -> None:
    again = simulate(people=100, now_us=NOW_US)
    assert [m.body for m in again.messages] == [m.body for m in story.messages]
    assert again.people == story.people
    assert simulate(people=100, now_us=NOW_US, seed=2).people != story.people


def test_every_message_belongs_to_one_person(story: Story) -> None:
    sent = {m.body["messageId"] for m in story.messages if not m.webhook}
    owned = [message_id for person in story.people for message_id in person.message_ids]
    assert sorted(owned) == sorted(sent)
    identifiers = [i for person in story.people for i in person.identifiers]
    assert len(identifiers) == len(set(identifiers))


def test_the_story_is_not_an_easy_one(story: Story) -> None:
    tracked = [json.dumps(m.body, sort_keys=True) for m in story.messages if not m.webhook]
    assert len(tracked) > len(set(tracked)), "nothing is sent twice"
    assert len(set(tracked)) == story.distinct_events - story.crm_messages, "a repeat differs from its original"
    times = [parse_time_us(m.body["timestamp"]) for m in story.messages if not m.webhook]
    assert times != sorted(times), "nothing is late"
    assert any(len([i for i in p.identifiers if i[0] == "anonymous_id"]) > 1 for p in story.people)
    assert any(p.key.startswith("second-") for p in story.people)
    assert story.crm_messages > 10
    sizes = {name: sum(belongs(p, NOW_US) for p in story.people) for name, belongs in AUDIENCES.items()}
    assert all(0 < size < len(story.people) for name, size in sizes.items() if name != "just-active"), sizes


def test_nobody_is_near_the_edge_of_an_audience(story: Story) -> None:
    """The report is made minutes after the story's end: that must not change who belongs."""
    for belongs in AUDIENCES.values():
        at_the_end = {p.key for p in story.people if belongs(p, NOW_US)}
        assert at_the_end == {p.key for p in story.people if belongs(p, NOW_US + 2 * HOUR_US)}
    moments = [moment for person in story.people for _, moment in person.events]
    assert max(moments) <= NOW_US
    assert min(moments) >= NOW_US - 60 * DAY_US


def test_looking_around_extends_the_truth() -> None:
    story = simulate(people=20, now_us=NOW_US)
    before = story.distinct_events
    messages = story.look_around(3, NOW_US)
    assert len(messages) == 3
    assert story.distinct_events == before + 3
    assert all(m.body["timestamp"] for m in messages)
