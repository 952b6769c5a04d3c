"""Receivers of alerts: of a destination, or of the installation where it has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.api.sync.v1.destination_service_pb2 import AlertHook
from headrace.plugins.masking import MASK
from headrace.rpc.errors import invalid_argument
from headrace.storage.sealing import Sealer
from headrace_sync.alerts.message import key_of_secret
from headrace_sync.config import DestinationConfig, alert_sealing_place
from headrace_sync.outlets.http import AddressRefused, check_url

_LONGEST = 2_000
_FIELD = "destination.alert_hook"


@dataclass(frozen=True, slots=True)
class Hook:
    """A receiver.

    Attributes:
        url: Where alerts go; empty for nowhere.
        secret: Key of the signatures; empty for none.
    """

    url: str
    secret: str


class Hooks:
    """Knows who is told of what."""

    def __init__(
        self, default: Hook, sealer: Sealer, destination_of: Callable[[str], DestinationConfig | None]
    ) -> None:
        """Wire it.

        Args:
            default: The installation's receiver.
            sealer: Opens keys.
            destination_of: The destination of a key; None when there is none.
        """
        self._default = default
        self._sealer = sealer
        self._destination_of = destination_of

    def of(self, destination_key: str) -> Hook:
        """The receiver of what concerns a destination.

        Raises:
            headrace.storage.sealing.SealError: Its key cannot be opened.
        """
        destination = self._destination_of(destination_key)
        if destination is None or not destination.alert_url:
            return self._default
        sealed, place = destination.alert_sealed, alert_sealing_place(destination_key)
        return Hook(destination.alert_url, self._sealer.open(sealed, place) if sealed else "")


def hook_message(config: DestinationConfig) -> AlertHook | None:
    """A destination's receiver, its key masked; None when it has none."""
    if not config.alert_url:
        return None
    return AlertHook(url=config.alert_url, secret=MASK if config.alert_sealed else "")


def checked_hook(wanted: AlertHook, key: str, before: str, sealer: Sealer, *, allow_private: bool) -> tuple[str, str]:
    """A receiver as it is stored: its address and its sealed key.

    Args:
        wanted: As it was given.
        key: Database id of the destination.
        before: The sealed key that a mask stands for; empty when there is none.
        sealer: Seals the key.
        allow_private: Take loopback, private and link-local addresses.

    Raises:
        ApiError: INVALID_ARGUMENT.
    """
    if not wanted.url:
        if wanted.secret not in ("", MASK):
            raise invalid_argument(f"{_FIELD}.secret", "is the key for the receiver in url, which is missing")
        return "", ""
    if len(wanted.url) > _LONGEST or len(wanted.secret) > _LONGEST:
        raise invalid_argument(_FIELD, f"must not have more than {_LONGEST:,} characters in url or secret")
    try:
        check_url(wanted.url, allow_private=allow_private)
    except AddressRefused as error:
        raise invalid_argument(f"{_FIELD}.url", str(error)) from None
    if wanted.secret == MASK:
        if not before:
            raise invalid_argument(f"{_FIELD}.secret", f"there is no earlier value that {MASK} could stand for")
        return wanted.url, before
    if not wanted.secret:
        return wanted.url, ""
    try:
        key_of_secret(wanted.secret)
    except ValueError:
        raise invalid_argument(f"{_FIELD}.secret", "what follows whsec_ is not Base64") from None
    place = alert_sealing_place(key)
    if before and sealer.open(before, place) == wanted.secret:
        return wanted.url, before  # sealed anew it would look changed
    return wanted.url, sealer.seal(wanted.secret, place)
