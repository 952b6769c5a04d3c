"""Why something is refused: a code that programs test, a sentence for people, the field at fault."""

from __future__ import annotations

from enum import StrEnum

from headrace.domain.segment import InvalidIdentifier


class Code(StrEnum):
    """Every reason for which ingest refuses a message or a request; listed in docs/guides/sending-events.md."""

    MALFORMED_JSON = "malformed_json"
    INVALID_UTF8 = "invalid_utf8"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "too_deep"
    MESSAGE_TOO_LARGE = "message_too_large"
    INVALID_TYPE = "invalid_type"
    INVALID_CHARACTERS = "invalid_characters"
    UNKNOWN_KIND = "unknown_kind"
    MISSING_NAME = "missing_name"
    NAME_TOO_LONG = "name_too_long"
    RESERVED_NAME = "reserved_name"
    MESSAGE_ID_TOO_LONG = "message_id_too_long"
    MISSING_IDENTIFIER = "missing_identifier"
    MISSING_USER_ID = "missing_user_id"
    MISSING_PREVIOUS_ID = "missing_previous_id"
    MISSING_GROUP_ID = "missing_group_id"
    IDENTIFIER_TOO_LONG = "identifier_too_long"
    INVALID_NAMESPACE = "invalid_namespace"
    TOO_MANY_IDENTIFIERS = "too_many_identifiers"
    INVALID_TIMESTAMP = "invalid_timestamp"
    TIMESTAMP_OUT_OF_RANGE = "timestamp_out_of_range"
    INVALID_TRACEPARENT = "invalid_traceparent"
    MAPPING_FAILED = "mapping_failed"
    PERSON_ERASED = "person_erased"

    BATCH_TOO_LARGE = "batch_too_large"
    BATCH_TOO_LONG = "batch_too_long"
    EMPTY_BATCH = "empty_batch"
    EMPTY_BODY = "empty_body"
    INVALID_ENCODING = "invalid_encoding"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    INVALID_FORM = "invalid_form"
    BODY_INCOMPLETE = "body_incomplete"


class Refused(Exception):
    """A message or a whole body is refused.

    Attributes:
        code: The reason.
        reason: A sentence that never quotes what was sent.
        field: The field at fault, "" when none is.
    """

    def __init__(self, code: Code, reason: str, field: str = "") -> None:
        """Say why."""
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.field = field


def person_erased() -> Refused:
    """The refusal of a message whose person was deleted or suppressed: the only one that is kept nowhere."""
    reason = "The person was deleted or suppressed: nothing about them is taken, and this message was not kept."
    return Refused(Code.PERSON_ERASED, reason)


def refused_of(error: InvalidIdentifier) -> Refused:
    """The refusal of a message in which something is no identifier."""
    return Refused(Code(error.code), error.reason, error.field)
