"""Which requests of a destination are kept for the delivery log, and what of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.plugins.masking import Masker
from headrace.plugins.render import masked_request
from headrace_sdk import Request, Response
from headrace_sync.exchanges.masking import personal_values, shown_answer, shown_body, shown_headers, shown_url
from headrace_sync.exchanges.store import ExchangeStore
from headrace_sync.outlets.verdicts import Kind, Verdict

_WENT_WELL = frozenset({Kind.DELIVERED, Kind.PENDING, Kind.AGAIN, Kind.GONE, Kind.UNTRIED})


class Recorder:
    """Keeps requests of one destination: all that did not go well, and of the others one now and then, or each."""

    def __init__(self, store: ExchangeStore, destination_key: str, *, every_s: float) -> None:
        """Keep them in a store.

        Args:
            store: It.
            destination_key: Database id of the destination.
            every_s: How often a request is kept that went well, in seconds; 0 keeps each.
        """
        self._every_s = every_s
        self._store = store
        self._key = destination_key
        self._sampled = -every_s

    def take(
        self,
        request: Request,
        answer: Response | str,
        verdicts: Sequence[Verdict],
        *,
        items: Iterable[Any],
        secrets: Sequence[str],
    ) -> str:
        """Keep a request, if it is to be kept.

        Args:
            request: As it was sent.
            answer: What the vendor said, or why nothing came.
            verdicts: What became of its items.
            items: Those items: what is known of their people is masked.
            secrets: Secrets that may stand in it.

        Returns:
            Id of what is kept; empty when nothing is.
        """
        went_well = isinstance(answer, Response) and answer.status < 400
        if went_well and all(verdict.kind in _WENT_WELL for verdict in verdicts):
            now = time.monotonic()
            if now - self._sampled < self._every_s:
                return ""
            self._sampled = now
        personal = personal_values(items)
        shown = masked_request(request, secrets)
        body = shown["body"] if isinstance(shown["body"], str) else ""
        content_type = next((v for name, v in request.headers.items() if name.lower() == "content-type"), "")
        told = Masker(secrets).mask(answer.body) if isinstance(answer, Response) else answer.encode()
        id = new_time_ordered_id()
        self._store.add(
            self._key,
            {
                "_id": id,
                "t": now_us(),
                "m": request.method,
                "u": shown_url(shown["url"], personal),
                "h": shown_headers(shown["headers"], personal),
                "b": shown_body(body, content_type, personal)
                or (f"({len(request.body):,} bytes)" if request.body else ""),
                "n": len(verdicts),
                "sc": answer.status if isinstance(answer, Response) else 0,
                "a": shown_answer(told, personal),
            },
        )
        return id
