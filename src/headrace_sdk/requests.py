"""What a connector gives back: requests to send, items it leaves out, and what became of each item."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request. The host sends it, limits it, tries it again and logs it.

    A connector that speaks something else than HTTP sends it by itself (`Destination.deliver`).

    Attributes:
        method: "POST", "PUT", "PATCH", "DELETE" or "GET"; with a scheme of the connector's own, any word of capitals.
        url: Absolute http or https address, or one with a scheme of the manifest. Never put a secret into it.
        headers: Headers by name; the host adds Content-Length, Host and User-Agent.
        body: Body as it goes over the wire.
        items: Places in the batch (from 0) of the items that the request carries, in the order of the outcomes. Several
            requests may carry the same single item: they are sent one after the other, in the order in which they were
            yielded, each when the one before was accepted. When one is not, the rest is not sent, and a later try
            begins with the first again.
        secrets: Texts in it to be masked wherever the request is shown, besides the secrets of the settings, which are
            always masked: what was *made* of a secret, such as the Base64 of a user name and password.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    items: tuple[int, ...]
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """An item that the connector leaves out, yielded in place of a request that carries it.

    Attributes:
        item: Place in the batch, from 0.
        reason: A sentence for the customer, without personal data.
        field: The field at fault, empty when it is no single one.
        is_failure: True when the item should have been sent and cannot be: it goes to the dead letter, from which it
            can be replayed, in place of being left out for good.
    """

    item: int
    reason: str
    field: str = ""
    is_failure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A remark on an item that *is* sent, yielded beside the request: shown in dry runs.

    Attributes:
        item: Place in the batch, from 0.
        reason: A sentence for the customer, without personal data.
    """

    item: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The vendor's answer.

    Attributes:
        status: HTTP status.
        headers: Headers; names in lower case.
        body: Body, decompressed, cut at 1 MiB.
        received_at_us: When it came, in microseconds since 1970 UTC.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    received_at_us: int = 0

    def json(self) -> Any:
        """The body as JSON, or None when it is none (an HTML error page, an empty body)."""
        try:
            return json.loads(self.body.decode("utf-8-sig"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):  # among them what is no UTF-8
            return None

    def json_object(self) -> Mapping[str, Any]:
        """The body as a JSON object, or an empty one when it is none."""
        value = self.json()
        return value if isinstance(value, dict) else {}

    def retry_after_s(self) -> float | None:
        """Seconds that the Retry-After header asks to wait (number or date), or None without a usable one."""
        text = self.headers.get("retry-after", "").strip()
        if not text:
            return None
        if text.isascii() and text.isdigit():
            return float(min(int(text[:9]), 86_400))
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(moment.timestamp() - self.received_at_us / 1e6, 0.0), 86_400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The vendor accepted the item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """The vendor accepted the item, but not as it should be, or it is unsure whether it did.

    Attributes:
        reason: A sentence for the customer, without personal data.
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The vendor will never accept the item as it is: dead letter, with the vendor's reason.

    Attributes:
        reason: A sentence for the customer, without personal data.
        field: The field at fault, empty when it is no single one.
    """

    reason: str
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The item may be accepted later: tried again with back-off, up to the manifest's `retry.max_age_s`.

    Attributes:
        reason: A sentence for the customer, without personal data.
        after_s: Seconds to wait; None leaves it to the host's back-off.
    """

    reason: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """The vendor took the item into a job: the host asks `poll` for its end.

    An answer to `poll` may give another job, which is asked for in turn: the errors of the first, or a second step that
    needs what the first one answered.

    Attributes:
        job: What `poll` needs to ask for the job, such as its id. Items with the same job are asked for together. It is
            kept in the store until the job has ended; a personal datum in it must not get into an address.
        after_s: Seconds after which to ask. The host waits longer and longer from one time to the next, up to half a
            minute; where an answer to `poll` gives the same job again, it waits at least as long as this one says.
    """

    job: str
    after_s: float = 5.0


Outcome = Delivered | Warned | Rejected | Retry | Pending
"""What became of one item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What became of a request.

    Attributes:
        items: One per entry of the request's `items`, in the same order. A wrong number is an error of the plugin.
        unauthorized: Set when the vendor refused the credentials: the host pauses the destination with this reason;
            the items wait, and this try does not count.
        misconfigured: Set when the settings cannot work (a list that was deleted): paused in the same way.
        throttle_s: Set when the vendor asks for fewer requests: the whole destination waits this many seconds; 0 leaves
            the time to the host.
        refused_whole: True when the vendor carried out nothing of the request because of some of its items. Those are
            `Rejected`; the host takes them out and sends the others again at once, whatever their outcome says. Where
            all are `Rejected`, the vendor did not say which: the host looks for them by halves, and an item that is
            refused alone is at fault.
    """

    items: tuple[Outcome, ...]
    unauthorized: str = ""
    misconfigured: str = ""
    throttle_s: float | None = None
    refused_whole: bool = False

    @classmethod
    def every(cls, request: Request, outcome: Outcome) -> Outcomes:
        """The same outcome for every item of the request."""
        return cls(items=(outcome,) * len(request.items))

    @classmethod
    def refused(cls, request: Request, reason: str, places: Collection[int] = ()) -> Outcomes:
        """The vendor carried out nothing of the request, for the sake of some of its items.

        Args:
            request: The request.
            reason: What it says of them: a sentence for the customer, without personal data.
            places: Which, counted from 0 in the request; those that it does not have are no matter. With none that it
                has, the vendor did not say which.
        """
        named = set(places) & set(range(len(request.items)))
        rejected, again = Rejected(reason=reason), Retry(reason="refused together with another item", after_s=0.0)
        items = (rejected if place in named or not named else again for place in range(len(request.items)))
        return cls(items=tuple(items), refused_whole=True)


def _refuse_constant(name: str) -> Any:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(f"{name} is no JSON")
