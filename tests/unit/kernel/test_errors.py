from __future__ import annotations

import grpc
import pymongo.errors
import pytest
import redis.exceptions
from google.rpc import error_details_pb2

from headrace.rpc import errors


def _details(error: errors.ApiError) -> dict[str, object]:
    found: dict[str, object] = {}
    for packed in errors.to_status(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if packed.Is(message.DESCRIPTOR):
                packed.Unpack(message)
                found[message.DESCRIPTOR.name] = message
    return found


def test_a_wrong_field_is_named_in_info_and_bad_request() -> None:
    details = _details(errors.invalid_argument("page_size", "must not be negative"))
    info, bad = details["ErrorInfo"], details["BadRequest"]
    assert isinstance(info, error_details_pb2.ErrorInfo) and isinstance(bad, error_details_pb2.BadRequest)
    assert (info.domain, info.reason, dict(info.metadata)) == ("headrace", "INVALID_ARGUMENT", {"field": "page_size"})
    assert [(v.field, v.description) for v in bad.field_violations] == [("page_size", "must not be negative")]


def test_all_users_of_a_resource_are_named_as_far_as_an_answer_has_room() -> None:
    error = errors.in_use("a", ["c", "b"])
    assert error.message == "a is used by b, c." and error.metadata == {"resource": "a", "used_by": "b, c"}
    many = errors.in_use("a", [f"{n:02}" for n in range(13)])
    assert many.message.endswith("08, 09 and 3 more.") and many.metadata["used_by"].endswith("08, 09")


def test_what_can_be_tried_again_says_when() -> None:
    details = _details(errors.unavailable("away", retry_after_s=2.5))
    retry = details["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 2.5


def test_the_text_of_an_unknown_exception_stays_inside() -> None:
    shown = errors.from_exception(ValueError("ada@example.com"))
    assert shown.code == grpc.StatusCode.INTERNAL
    assert "ada" not in shown.message
    assert shown.metadata["error_id"] in shown.message


@pytest.mark.parametrize(
    "error",
    [
        pymongo.errors.ServerSelectionTimeoutError("x"),
        pymongo.errors.AutoReconnect("x"),
        redis.exceptions.ConnectionError("x"),
        redis.exceptions.TimeoutError("x"),
    ],
)
def test_a_store_that_is_away_is_unavailable(error: Exception) -> None:
    shown = errors.from_exception(error)
    assert shown.code == grpc.StatusCode.UNAVAILABLE
    assert shown.retry_after_s is not None


def test_a_reason_that_is_not_in_the_proto_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        errors.ApiError(grpc.StatusCode.INTERNAL, "NO_SUCH_REASON", "x")
