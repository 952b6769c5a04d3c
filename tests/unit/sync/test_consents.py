"""What destinations require of people, and whose events spoke of it."""

from __future__ import annotations

import pytest
from headrace_sync.outlets.verdicts import Kind
from headrace_sync.people import consents

from headrace.domain.consent import ConsentValue
from headrace.rpc.errors import ApiError

YES = ConsentValue(True, 1, "m1", "web")
NO = ConsentValue(False, 2, "m2", "web")


def test_the_first_purpose_that_is_not_granted_is_the_reason() -> None:
    said = {"a": YES, "b": NO}
    assert consents.refusal([], None) is None
    assert consents.refusal(["a"], said) is None
    for required, missing in ((["a", "b"], "b"), (["c", "b"], "c"), (["b", "c"], "b")):
        verdict = consents.refusal(required, said)
        assert verdict is not None
        assert (verdict.kind, verdict.reason) == (Kind.SKIPPED, f"consent:{missing}")
    nobody = consents.refusal(["a"], None)
    assert nobody is not None
    assert nobody.reason == "consent:a"


def test_evidence_survives_storage() -> None:
    rows = consents.stored(consents.evidence(["b", "a", "c"], {"a": YES, "b": NO, "other": YES}))
    assert rows == [["b", False, 2, "m2", "web"], ["a", True, 1, "m1", "web"]]
    assert [(m.purpose, m.status, m.timestamp_us) for m in consents.messages(rows)] == [("b", 2, 2), ("a", 1, 1)]


def test_a_denial_among_several_events_decides() -> None:
    said = [("p1", {"a": True}), ("p1", {"a": False}), ("p2", {"a": True, "x": False}), ("p3", {"x": False})]
    found = consents.spoken(said, ["a", "b"])
    assert (found.denied, found.granted) == ({"p1"}, {"p2"})


def test_purposes_are_stored_in_one_spelling() -> None:
    assert consents.checked("f", ["adUserData", "ad_user_data", " own "]) == ("ad_user_data", "own")
    with pytest.raises(ApiError, match="f"):
        consents.checked("f", ["a", ""])
