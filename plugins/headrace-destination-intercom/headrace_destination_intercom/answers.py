"""What Intercom's answers mean, and which step comes next where it knows people by its own ids only.

A step is "NAME:..." for `poll`; where an answer belongs to is the fragment of the address, which is not sent.
https://developers.intercom.com/docs/references/rest-api/errors/error-codes
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    Outcome,
    Outcomes,
    Pending,
    RateLimited,
    RecordRejected,
    Request,
    Response,
    Retry,
    TransientError,
)
from headrace_sdk.answers import remark

TAG, UNTAG, FORGET, MAKE, UPDATE = "tag", "untag", "forget", "make", "update"
_EXISTING = re.compile(r"\bid=([0-9a-fA-F]{8,64})\b")
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def read(request: Request, response: Response) -> Outcomes:
    """The outcome of a request, which carries one item.

    Raises:
        AuthError: The token is not valid, or lacks a permission.
        ConfigError: Intercom does not know the tag, the address or the version.
        RateLimited: Intercom asks for fewer requests.
        TransientError: Intercom failed in a way that passes, or what answered is not Intercom.
        RecordRejected: Intercom will never take the request as it is.
    """
    parts = urlsplit(request.url)
    step, _, rest = parts.fragment.partition(":")
    if parts.path == "/contacts" and request.method == "POST":
        return Outcomes.every(request, _after_making(request, response, step))
    if response.status == 404:
        return Outcomes.every(request, _not_found(request, response, parts.path, step, rest))
    answer = accepted(response)
    if parts.path == "/contacts/search":
        return Outcomes.every(request, _after_search(answer, step))
    if step in (FORGET, UNTAG) and rest:
        return Outcomes.every(request, wait(step, rest))
    return Outcomes.every(request, Delivered())


def wait(step: str, argument: str) -> Pending:
    """What the host asks for next."""
    return Pending(job=f"{step}:{argument}", after_s=0.0)


def accepted(response: Response) -> Mapping[str, Any]:
    """The object in a successful answer, empty where Intercom says nothing.

    Raises:
        ConnectorError: As of `read`.
    """
    if 200 <= response.status < 300 and not list(_errors(response)):
        if response.body.strip() and not isinstance(response.json(), Mapping):
            raise TransientError("what answered in Intercom's place is not Intercom")
        return response.json_object()
    _raise(response)


def sentence(response: Response) -> str:
    """What an answer to a check means: empty when all is well."""
    try:
        accepted(response)
    except ConnectorError as error:
        return error.reason
    return ""


def _raise(response: Response) -> NoReturn:
    status, said = response.status, _said(response)
    codes = {str(one.get("code")) for one in _errors(response)}
    if status == 401 or codes & {"token_unauthorized", "token_revoked", "token_not_found", "unauthorized"}:
        raise AuthError(f"{said}: the access token is not valid (any more)")
    if status == 429 or "rate_limit_exceeded" in codes:
        raise RateLimited(said, response.retry_after_s() or _until_reset_s(response))
    if "intercom_version_invalid" in codes:
        raise ConfigError(f"{said}: set another API version", "api_version")
    if status == 403:
        raise AuthError(f"{said}: the access token lacks a permission, or belongs to another region")
    if status in (404, 405, 410) or 300 <= status < 400:
        raise ConfigError(f"{said}: the address is not that of Intercom's API", "base_url")
    if status >= 500 or status == 408 or not codes:
        raise TransientError(said, response.retry_after_s())
    raise RecordRejected(said)


def _after_making(request: Request, response: Response, step: str) -> Outcome:
    """A contact was made, or is there: its id is in the answer either way."""
    if response.status == 409:
        words = " ".join(str(one.get("message")) for one in _errors(response))
        existing = _EXISTING.search(words)
        if existing is None:
            raise RecordRejected(_said(response))
        if "archived" in words.lower():
            raise RecordRejected("Intercom has the contact archived")
        known = existing.group(1)
        if not step:
            return wait(UPDATE, f"{known}:{request.body.decode()}")
    else:
        known = str(accepted(response).get("id") or "")
        if not _ID.fullmatch(known):
            raise TransientError("Intercom answered without the id of a contact")
    if step == TAG:
        return wait(TAG, known)
    if step == MAKE:
        return Retry(reason="Intercom did not know the person, who has been made: the event goes again", after_s=1.0)
    return Delivered()


def _after_search(answer: Mapping[str, Any], step: str) -> Outcome:
    """Contacts that were found; whom Intercom does not know has no tag and is forgotten."""
    data = answer.get("data")
    if not isinstance(data, list):
        raise TransientError("Intercom answered without contacts")
    ids = [one["id"] for one in data if isinstance(one, Mapping) and _ID.fullmatch(str(one.get("id") or ""))]
    return wait(step, ",".join(ids)) if ids else Delivered()


def _not_found(request: Request, response: Response, path: str, step: str, rest: str) -> Outcome:
    if not list(_errors(response)):
        _raise(response)
    words = " ".join(str(one.get("message")) for one in _errors(response)).lower()
    if step in (TAG, UNTAG) and "tag" in words:
        raise ConfigError(f"{_said(response)}: Intercom does not know the tag", "list_id")
    if step in (FORGET, UNTAG):
        return wait(step, rest) if rest else Delivered()
    if path == "/events":
        event = json.loads(request.body)
        who = {"external_id": event["user_id"]} if "user_id" in event else {"email": event["email"]}
        return wait(MAKE, json.dumps({"role": "user", **who}, ensure_ascii=False))
    return Retry(reason="Intercom does not know the contact any more")


def _errors(response: Response) -> Iterator[Mapping[str, Any]]:
    errors = response.json_object().get("errors")
    yield from (one for one in errors if isinstance(one, Mapping)) if isinstance(errors, list) else ()


def _until_reset_s(response: Response) -> float | None:
    """Seconds until the limit's window ends, which Intercom names as a moment in seconds since 1970."""
    moment = response.headers.get("x-ratelimit-reset", "")
    if not (moment.isascii() and moment.isdigit() and len(moment) < 12):
        return None
    return min(max(int(moment) - response.received_at_us / 1e6, 0.1), 600.0)


def _said(response: Response) -> str:
    """Intercom's words, without what may be personal."""
    said = " ".join(str(one.get("message") or one.get("code")) for one in _errors(response))
    return f"Intercom answered with status {response.status}{remark(said)}"
