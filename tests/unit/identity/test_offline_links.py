"""Offline replay takes manual links; wrong ones are named by their place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_identity.resolving.offline import LinksError, replay_lines

LINES = [
    '{"type": "track", "event": "a", "anonymousId": "dev1", "messageId": "m1"}',
    '{"type": "identify", "userId": "u1", "messageId": "m2"}',
    '{"type": "identify", "userId": "u1", "anonymousId": "dev1", "messageId": "m3"}',
]
APART = {"kind": "apart", "first": ["user_id", "u1"], "second": ["anonymous_id", "dev1"]}


def test_links_hold_from_the_start() -> None:
    assert len(replay_lines(None, LINES)["profiles"]) == 1
    result = replay_lines(None, LINES, json.dumps([APART]))
    assert len(result["profiles"]) == 2
    assert result["decisions"][2]["set_aside"] == [
        {"identifier": ["anonymous_id", "dev1"], "action": "demoted", "rule": "apart:1"}
    ]


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ({"kind": "apart"}, "must be a list"),
        ([3], r"\[0\].kind must be together or apart"),
        ([APART, APART | {"kind": "never"}], r"\[1\].kind must be together or apart"),
        ([APART | {"first": ["user_id"]}], r"\[0\].first must be \[namespace, value\]"),
        ([APART | {"second": ["email", "x"]}], r"\[0\].second identifies nobody, by the rules \(blocked:invalid\)"),
        ([APART | {"second": ["user_id", " u1"]}], r"\[0\] contradicts itself"),
        ([APART | {"id": "a"}, APART | {"kind": "together"}], r"\[1\] contradicts a"),
        ([APART | {"id": "a"}, APART | {"id": "a"}], r"\[1\].id stands twice"),
    ],
)
def test_wrong_links_are_named(links: Any, message: str) -> None:
    with pytest.raises(LinksError, match=message):
        replay_lines(None, LINES, json.dumps(links))


def test_links_that_are_no_json() -> None:
    with pytest.raises(LinksError, match="no JSON"):
        replay_lines(None, LINES, "{")
