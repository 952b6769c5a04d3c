"""Errors that a connector raises, named by what the platform should do about them.

Every error has one text. It is shown to the customer and written to logs, so it must hold no secret and no
personal datum: name the field, not its value. An exception of any other type is a defect of the plugin; only its type
and place are reported.
"""

from __future__ import annotations


class ConnectorError(Exception):
    """Root of the errors below. Raise one of its kinds, not this."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConfigError(ConnectorError):
    """The settings cannot work: nothing is sent until somebody changes them.

    Args:
        reason: A sentence for the customer: what is wrong and what to do.
        field: The setting that is wrong, empty when it is no single one.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.field = field


class AuthError(ConnectorError):
    """The vendor refuses the credentials: deliveries wait, losing nothing, until the credentials change."""


class RateLimited(ConnectorError):
    """The vendor asks for fewer requests: the whole destination slows down, then everything is tried again.

    Args:
        reason: A sentence for the customer.
        after_s: Seconds to wait; None when the vendor did not say.
    """

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class TransientError(ConnectorError):
    """The vendor failed in a way that passes: the items of the request are tried again later.

    Args:
        reason: A sentence for the customer.
        after_s: Seconds to wait; None when the vendor did not say.
    """

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class RecordRejected(ConnectorError):
    """This item can never be accepted as it is: it goes to the dead letter (or the member is left out).

    Args:
        reason: A sentence for the customer, without the value.
        field: The field at fault, empty when it is no single one.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.field = field
