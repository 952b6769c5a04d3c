"""What Customer.io's answers mean.

A batch is answered by 200 with an empty object, or by 207 with an error for each operation that it does not take; the
others are accepted: https://docs.customer.io/integrations/api/track/tag/track_v2/batch/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from headrace_sdk import (
    AuthError,
    ConfigError,
    Delivered,
    Outcome,
    Outcomes,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    TransientError,
    Warned,
)
from headrace_sdk.answers import remark, words

_FIELD = re.compile(r"[A-Za-z0-9_.$\[\]-]{1,80}")


def read(request: Request, response: Response, *, refused: str) -> Outcomes:
    """One outcome per item of a request.

    Args:
        request: A batch, an anonymous event or a change of a segment.
        response: Its answer.
        refused: The setting at fault when there is nothing at the address.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer = response.json_object()
    errors = answer.get("errors")
    if response.status in (200, 207) and isinstance(errors, list) and errors:
        return Outcomes(items=_accounted(request, errors))
    if response.status == 200 and isinstance(response.json(), Mapping):
        return Outcomes.every(request, Delivered())
    if response.status == 207:
        return Outcomes.every(request, Warned(reason="Customer.io refused a part of the request without saying which"))
    if response.status in (400, 413):
        said = f"Customer.io answered with status {response.status}{_explanation(answer)}"
        return Outcomes.refused(request, said)
    _raise(response, answer, refused)


def answer_of(response: Response, refused: str) -> Mapping[str, Any]:
    """The object of an answer to a question.

    Raises:
        ConnectorError: Of the kind that the answer calls for.
    """
    answer = response.json_object()
    if response.status == 200 and answer:
        return answer
    _raise(response, answer, refused)


def region_problem(response: Response, region: str) -> str:
    """What is wrong with the Track API key, or the region; empty when nothing is."""
    answer = response.json_object()
    if response.status == 200 and isinstance(answer.get("region"), str):
        if answer["region"] == region:
            return ""
        return "The account is in the other data centre: set the other region."
    if response.status in (401, 403):
        return "Customer.io refuses the site id with this Track API key."
    return f"Customer.io answered with status {response.status}: try again."


def _accounted(request: Request, errors: list[Any]) -> tuple[Outcome, ...]:
    """Outcomes where Customer.io names what it refused, by its place in the batch."""
    size = len(request.items)
    given = [one for one in errors if isinstance(one, Mapping)]
    if size == 1 and given:  # of somebody's several operations, the first that failed speaks for all
        return (_rejected(given[0]),)
    named = {place: one for one in given if isinstance(place := one.get("batch_index"), int) and 0 <= place < size}
    unnamed = any(one.get("batch_index") not in named for one in given) or len(given) < len(errors)
    unsure = Warned(reason="Customer.io refused a part of the request without saying which")
    rest: Outcome = unsure if unnamed else Delivered()
    return tuple(_rejected(named[place]) if place in named else rest for place in range(size))


def _rejected(error: Mapping[str, Any]) -> Rejected:
    said = [found for part in ("reason", "message") if (found := words(error.get(part)))]
    field = error.get("field")
    return Rejected(
        reason=f"Customer.io refused it: {', '.join(said) or 'without a reason'}",
        field=field if isinstance(field, str) and _FIELD.fullmatch(field) else "",
    )


def _raise(response: Response, answer: Mapping[str, Any], refused: str) -> NoReturn:
    status = response.status
    said = f"Customer.io answered with status {status}{_explanation(answer)}"
    if status in (401, 403):
        raise AuthError(f"{said}: it refuses the API key")
    if status == 429:
        raise RateLimited(said, response.retry_after_s())
    if 300 <= status < 400:
        raise ConfigError(f"{said}: the account is in another region, or the address is wrong", "region")
    if status in (404, 405, 410):
        raise ConfigError(f"{said}: there is nothing of that name", refused)
    if status >= 500 or status == 408 or status < 300:
        raise TransientError(said, response.retry_after_s())
    raise RecordRejected(said)


def _explanation(answer: Mapping[str, Any]) -> str:
    """Customer.io's words, without what may be personal: `errors` of v2, `meta` of v1."""
    meta = answer.get("meta")
    inner = meta if isinstance(meta, Mapping) else answer
    found = inner.get("errors") or inner.get("error")
    first = found[0] if isinstance(found, list) and found else found
    return remark(" ".join(map(str, first.values())) if isinstance(first, Mapping) else first)
