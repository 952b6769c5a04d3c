"""When memberships end, computed from a profile's events alone, is what the reference says."""

from __future__ import annotations

from random import Random

from headrace_audience.answers.outlook import ends_by_events
from headrace_audience.offline.facts import resolved_of
from headrace_audience.offline.reference import Reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import audience_histories as random
from tests.support.examples import examples

QUICK = settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@QUICK
@given(r=st.randoms(use_true_random=False))
@random.anywhen
def test_ends_are_those_of_the_reference(r: Random) -> None:
    audiences = random.audiences(r)
    facts = random.history(r)
    at_us = random.moment(r)
    reference = Reference(facts, audiences)
    for profile in reference.profiles:
        events = [resolved_of(fact) for fact in facts if fact.profile == profile]
        expected = {
            audience_id: moment_us
            for audience_id, definition in audiences.items()
            if reference.holds(definition.where, profile, at_us)
            and (moment_us := reference.next_change(definition, profile, at_us)) is not None
        }
        assert ends_by_events("w", profile, events, set(audiences), audiences, (), at_us) == expected
