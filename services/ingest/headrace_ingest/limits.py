"""What one message and one batch may be. Beyond these a message is refused, never cut."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.domain.identifiers import MAX_VALUE_LENGTH

MAX_MESSAGE_ID = 100
"""Characters of a message id."""
MAX_NAME = 200
"""Characters of an event's name."""
MAX_IDENTIFIERS = 50
"""Identifiers of one event."""
MAX_IDENTIFIER = MAX_VALUE_LENGTH
"""Characters of an identifier's value."""
FUTURE_US = 5 * 60 * 1_000_000
"""How far ahead of the clock an event may be before it is flagged."""
MAX_TIME_US = 253_402_300_799_000_000
"""The last second of the year 9999; event times lie between 1970 and it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that the operator may set, in bytes, messages and levels of nesting."""

    message_bytes: int = 32 * 1024
    batch_bytes: int = 512 * 1024
    batch_messages: int = 2_500
    depth: int = 64


DEFAULT_LIMITS = Limits()
