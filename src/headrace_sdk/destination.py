"""The base of destination connectors: pure functions from batches to requests and from answers to outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel

from headrace_sdk.items import DeleteBatch, EventBatch, Member, MemberBatch, Row
from headrace_sdk.manifest import Manifest
from headrace_sdk.requests import Note, Outcomes, Request, Response, Skip

SettingsT = TypeVar("SettingsT", bound=BaseModel)

Built = Request | Skip | Note
"""What add_members, remove_members, send_events and delete yield."""


class Destination(Generic[SettingsT]):
    """A configured destination. Override what the manifest's capabilities promise.

    A connector does no I/O, reads no clock and draws no random numbers: the same batch and settings give the same
    bytes. It keeps nothing between calls. The host makes one instance per configured destination and may throw it
    away at any time.

    A connector that does not speak HTTP makes requests all the same: their URLs have a scheme of its own (`schemes` of
    the manifest), their bodies say all that goes out. `deliver` then does what a request says and nothing else; `read`
    says what the answer means. Only `connect`, `deliver` and `close` may do I/O, and keep a client between calls.

    Each method that makes requests must account for every item of its batch exactly once: in `items` of one Request (or
    of several that carry nothing but this item), or by one Skip. Notes may come on top.

    Attributes:
        manifest: What the connector is.
        settings: The checked settings of this destination.
    """

    manifest: ClassVar[Manifest]

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    def rows(self, member: Member) -> Sequence[Row]:
        """The entries that should be on the vendor's list for this member (LIST_SYNC).

        Depends only on the member and the settings. Raises RecordRejected when nothing of the member can be used,
        such as without a valid identifier: the member is then left out, with this reason, and what was on the list for
        them is removed.
        """
        raise NotImplementedError("LIST_SYNC needs rows()")

    def add_members(self, batch: MemberBatch) -> Iterable[Built]:
        """Requests that put the rows on the list (LIST_SYNC)."""
        raise NotImplementedError("LIST_SYNC needs add_members()")

    def remove_members(self, batch: MemberBatch) -> Iterable[Built]:
        """Requests that take the rows off the list (LIST_SYNC). The rows are those that were added, as stored then."""
        raise NotImplementedError("LIST_SYNC needs remove_members()")

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """Requests that send the events (EVENT_SYNC, FORWARDING)."""
        raise NotImplementedError("EVENT_SYNC and FORWARDING need send_events()")

    def delete(self, batch: DeleteBatch) -> Iterable[Built]:
        """Requests that make the vendor forget people (DELETION)."""
        raise NotImplementedError("DELETION needs delete()")

    def read(self, request: Request, response: Response) -> Outcomes:
        """What the vendor's answer means: one outcome per item of the request, in its order.

        May instead raise AuthError, ConfigError, RateLimited, TransientError or RecordRejected for the whole request.
        When no answer came at all, the host tries again without asking.
        """
        raise NotImplementedError("every connector needs read()")

    async def connect(self) -> None:
        """Open what `deliver` needs, such as a pool of connections (schemes). Called before the first `deliver`.

        When it fails, nothing was sent: it is called again before the next `deliver`. It counts towards the time that
        `deliver` has.

        Raises:
            TransientError: There is no connection at the moment.
        """

    async def deliver(self, request: Request) -> Response:
        """Do what a request with one of the manifest's `schemes` says, and give the answer back (schemes).

        Several may be under way at a time, at most the manifest's `concurrency`. May be cancelled at any moment, by
        the host or because `timeout_s` is over. Connections to private, loopback and link-local addresses fail with an
        OSError unless the operator allows them; what connects by other means than Python's sockets has to check that
        itself.

        Returns:
            The answer for `read` or `read_check`: its status in the manner of HTTP (2xx taken, 4xx refused, 5xx
            failed), its body whatever the connector needs to tell the outcome of each item. Where the other end is
            known to have done nothing, or cannot do things twice, an answer says so; else raise.

        Raises:
            TransientError: Nothing was sent, such as without a connection.
            Exception: Any other is a defect of the plugin, and the items may have arrived.
        """
        raise NotImplementedError("a manifest with schemes needs deliver()")

    async def close(self) -> None:
        """Close what `connect` opened, also when it failed half-way (schemes)."""

    def poll(self, job: Job) -> Request:
        """A request that asks how a job stands (JOBS), its `items` being all of the job's places, from 0.

        Its answer goes to `read` like any other, which gives `Pending` again while the job runs.
        """
        raise NotImplementedError("JOBS needs poll()")

    def check(self) -> Iterable[Check]:
        """What to ask the vendor to find out whether the settings work (CHECK), each with the permission in question.

        Must change nothing at the vendor.
        """
        raise NotImplementedError("CHECK needs check()")

    def read_check(self, check: Check, response: Response) -> str:
        """What an answer to `check` means: empty when all is well, else a sentence that says what to do about it."""
        raise NotImplementedError("CHECK needs read_check()")

    def lists(self, page: str = "") -> Request:
        """A request for the vendor's lists (LISTS): the first page, or the one that an answer named. No items."""
        raise NotImplementedError("LISTS needs lists()")

    def create_list(self, name: str) -> Request:
        """A request that makes a list of this name (LISTS). No items."""
        raise NotImplementedError("LISTS needs create_list()")

    def read_lists(self, request: Request, response: Response) -> Lists:
        """The lists in an answer to `lists` or `create_list` (LISTS). Raises a ConnectorError as `read` may."""
        raise NotImplementedError("LISTS needs read_lists()")

    def normalise(self, field: str, value: str) -> Normalised:
        """The value of a field as the vendor compares it, and as it is sent. Used by `headrace destination normalise`.

        May be called on an instance whose settings hold nothing but defaults.

        Raises RecordRejected when the value cannot be used.
        """
        return Normalised(normalised=value, sent=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job at the vendor.

    Attributes:
        id: As `Pending.job` said.
        items: Number of items in it.
        now_us: The host's clock, in microseconds since 1970 UTC.
    """

    id: str
    items: int
    now_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that must hold for the destination to work.

    Attributes:
        title: What is checked, for people: "May change the audience".
        request: Finds it out. No items.
    """

    title: str
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorList:
    """A list at the vendor.

    Attributes:
        id: As the vendor knows it; what the setting of the list takes.
        name: For people.
        size: Members, if the vendor says.
    """

    id: str
    name: str
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Lists of a page.

    Attributes:
        lists: The lists, or the one that was made.
        next_page: What `lists` takes for the next page; empty at the end.
    """

    lists: tuple[VendorList, ...]
    next_page: str = ""


class Normalised(BaseModel, frozen=True):
    """A field's value on its way to the vendor.

    Attributes:
        normalised: In the vendor's form. For a value that came in hashed, the hash.
        sent: What goes over the wire: usually the hash.
    """

    normalised: str
    sent: str
