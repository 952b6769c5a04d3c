"""What Meta's answers mean."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
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
from headrace_sdk.answers import remark

_CREDENTIALS = frozenset({102, 190, 463, 467, 2500})
_THROTTLED = frozenset({4, 17, 32, 341, 613, *range(80_000, 80_015)})
_PASSING = frozenset({-1, 1, 2, 368, 5000, 21_009})
_LIST_UNUSABLE = frozenset({33, 1_487_301, 1_487_366, 1_713_230, 1_870_034, 1_870_088})
_TERMS = frozenset({2655, 1_870_034})
_OLD_VERSION = frozenset({2635})
_LONGEST_WAIT_S = 3_600.0


def read(request: Request, response: Response) -> Outcomes:
    """One outcome per item of a request.

    Raises:
        AuthError: The token is not valid, or may not change the list.
        ConfigError: The list cannot be changed, or the API version is no more.
        RateLimited: Meta asks for fewer requests.
        TransientError: Meta failed in a way that passes.
        RecordRejected: Meta will never take the request as it is.
    """
    answer = answer_of(response)
    if "num_invalid_entries" not in answer and "audience_id" not in answer and "num_received" not in answer:
        raise TransientError("Meta answered with something that is no answer to this request", None)
    return _accepted(request, answer)


def answer_of(response: Response) -> Mapping[str, Any]:
    """The object that Meta answered with.

    Raises:
        ConnectorError: One of those of `read`: it answered with an error.
    """
    answer = response.json_object()
    error = answer.get("error")
    if isinstance(error, Mapping) or not 200 <= response.status < 300:
        _raise(error if isinstance(error, Mapping) else {}, response)
    return answer


def _raise(error: Mapping[str, Any], response: Response) -> NoReturn:
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    status = response.status
    words = remark(error.get("error_user_title") or error.get("message"))
    said = f"Meta answered with error {code}" + (f", {subcode}" if subcode else "") + words
    if not error:  # no JSON of Meta's: a proxy or a page in between
        said = f"Meta answered with status {status} and no reason"
    if code in _CREDENTIALS or (not error and status == 401):
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if code in _THROTTLED or status == 429:
        raise RateLimited(said, _wait_s(response))
    if code == 100 and "appsecret_proof" in str(error.get("message")):
        raise ConfigError(f"{said}: the app secret is missing or is not that of the token's app", "app_secret")
    if code in _OLD_VERSION:
        raise ConfigError(f"{said}: set a newer API version", "api_version")
    if code in _TERMS or subcode in _TERMS:
        raise ConfigError(f"{said}: accept the terms of Custom Audiences in Ads Manager", "audience_id")
    if subcode in _LIST_UNUSABLE:
        raise ConfigError(f"{said}: the audience is gone, blocked or not shared with this token", "audience_id")
    if code in (3, 10, 294) or 200 <= code <= 299 or (not error and status == 403):
        raise AuthError(f"{said}: the token lacks a permission on the audience's ad account")
    if code in _PASSING or error.get("is_transient") is True or status >= 500 or not error:
        raise TransientError(said, response.retry_after_s())
    raise RecordRejected(said)


def _wait_s(response: Response) -> float | None:
    """How long Meta says to wait: Retry-After, or what the usage headers estimate."""
    waits = [response.retry_after_s() or 0.0]
    for name, member, unit_s in (
        ("x-business-use-case-usage", "estimated_time_to_regain_access", 60.0),
        ("x-ad-account-usage", "reset_time_duration", 1.0),
    ):
        for value in _found(_json(response.headers.get(name, "")), member):
            waits.append(value * unit_s)
    longest = min(max(waits), _LONGEST_WAIT_S)
    return longest or None


def _accepted(request: Request, answer: Mapping[str, Any]) -> Outcomes:
    invalid = max(_number(answer.get("num_invalid_entries")), 0)
    if invalid == 0:
        return Outcomes.every(request, Delivered())
    if request.method == "DELETE":  # a row that is not valid is on no list
        return Outcomes.every(request, Warned(reason=f"Meta called {invalid} of the rows to be removed invalid"))
    rejected = Rejected(reason="Meta calls the row invalid")
    rows = _rows_of(request)
    if invalid >= len(request.items) or len(rows) != len(request.items):
        outcome: Outcome = rejected
        if invalid < len(request.items):
            outcome = Warned(reason=f"Meta called {invalid} rows of the request invalid")
        return Outcomes.every(request, outcome)
    samples = set(_texts(answer.get("invalid_entry_samples")))
    shared = Counter(cell for row in rows for cell in set(row))
    guilty = {place for place, row in enumerate(rows) if _is_sampled(row, samples, shared)}
    unsure = Warned(reason=f"Meta called {invalid} rows of the request invalid without saying which")
    if len(guilty) > invalid:
        return Outcomes(items=tuple(unsure if place in guilty else Delivered() for place in range(len(rows))))
    rest: Outcome = Delivered() if len(guilty) == invalid else unsure
    return Outcomes(items=tuple(rejected if place in guilty else rest for place in range(len(rows))))


def _rows_of(request: Request) -> list[list[str]]:
    """The rows that a request of ours carries."""
    data = json.loads(request.body)["payload"]["data"]
    return [[cell for cell in row if isinstance(cell, str) and cell] for row in data]


def _is_sampled(row: list[str], samples: set[str], shared: Counter[str]) -> bool:
    """True when Meta shows the row, or a cell that only this row has, among the invalid ones."""
    own = [cell for cell in row if shared[cell] == 1]
    return any(cell in samples for cell in own) if own else all(cell in samples for cell in row)


def _texts(value: Any) -> Iterator[str]:
    """All texts in the samples, whatever shape Meta gives them: names, values, lists, JSON in a text."""
    if isinstance(value, str):
        yield value
        inner = _json(value)
        if isinstance(inner, dict | list):
            yield from _texts(inner)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(str(name))
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _found(value: Any, member: str) -> Iterator[float]:
    """Numbers called so, anywhere in a value."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == member and isinstance(inner, int | float) and not isinstance(inner, bool) and inner > 0:
                yield float(inner)
            yield from _found(inner, member)
    elif isinstance(value, list):
        for inner in value:
            yield from _found(inner, member)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
