"""What brokers' errors mean for the records of a request."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from headrace_destination_kafka import answers

from headrace_sdk import AuthError, ConfigError, Delivered, Rejected, Request, Retry

TWO = Request(method="PRODUCE", url="kafka://b.example:9092/t", items=(0, 1))


@pytest.mark.parametrize(
    ("errors", "kinds", "status"),
    [
        (["", ""], [Delivered, Delivered], 200),
        (["", "NotEnoughReplicasError"], [Delivered, Retry], 200),
        (["MessageSizeTooLargeError", ""], [Rejected, Delivered], 200),
        (["InvalidMessageError", "NotLeaderForPartitionError"], [Rejected, Retry], 200),
        (["KafkaTimeoutError", "KafkaTimeoutError"], [Retry, Retry], 503),
        (["KafkaConnectionError"], [Retry, Retry], 503),
    ],
)
def test_each_record_has_its_own_outcome(errors: Sequence[str], kinds: list[type], status: int) -> None:
    answer = answers.response(errors)
    assert answer.status == status
    assert [type(one) for one in answers.read(TWO, answer).items] == kinds


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("TopicAuthorizationFailedError", AuthError),
        ("SaslAuthenticationFailed", AuthError),
        ("UnknownTopicOrPartitionError", ConfigError),
        ("InvalidTopicError", ConfigError),
    ],
)
def test_what_stops_the_destination(name: str, error: type[Exception]) -> None:
    answer = answers.response([name])
    assert answer.status == 200
    with pytest.raises(error):
        answers.read(TWO, answer)
    assert name in answers.problem(answer)


def test_several_records_of_one_item_are_one_outcome() -> None:
    one = Request(method="PRODUCE", url="kafka://b.example:9092/t", items=(3,))
    (outcome,) = answers.read(one, answers.response(["", "KafkaTimeoutError"])).items
    assert isinstance(outcome, Retry)
    assert answers.problem(answers.response([""])) == ""
