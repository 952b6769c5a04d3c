"""What a script returns, checked and made into requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from headrace_destination_javascript.engine import ScriptError
from headrace_sdk import Request

MOST_REQUESTS = 10
LONGEST_BODY = 1_000_000
METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET")

_MEMBERS = ("method", "url", "headers", "body", "secrets")
_LONGEST_URL = 8_000
_MOST_HEADERS = 50
_LONGEST_HEADER = 8_000
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]*")
_HOSTS_OWN = frozenset(
    {
        "connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})
_SHORTEST_SECRET = 6


class _Unusable(Exception):
    """A request that cannot be sent. The text goes on from "the request"."""


def requests_of(returned: Sequence[Mapping[str, Any]], *, item: int, allow_http: bool) -> list[Request]:
    """The requests that a script returned for an item.

    Args:
        returned: As `Script.call` gives it.
        item: Place of the item in its batch.
        allow_http: Whether addresses may begin with http.

    Raises:
        ScriptError: One of them cannot be sent; the text says which and why, without its values.
    """
    if len(returned) > MOST_REQUESTS:
        raise ScriptError(f"{len(returned)} requests for one event: {MOST_REQUESTS} at most")
    made = []
    for place, one in enumerate(returned):
        try:
            made.append(_request(one, item, allow_http=allow_http))
        except _Unusable as error:
            which = f"request {place + 1} of {len(returned)}" if len(returned) > 1 else "the request"
            raise ScriptError(f"{which}: {error}") from None
    return made


def _request(one: Mapping[str, Any], item: int, *, allow_http: bool) -> Request:
    given = one["request"]
    if not isinstance(given, dict):
        raise _Unusable(f"is no object with {', '.join(_MEMBERS[:-1])}")
    unknown = [name for name in given if name not in _MEMBERS]
    if unknown:
        named = unknown[0] if _HEADER_NAME.fullmatch(unknown[0]) else "with an odd name"
        raise _Unusable(f"has an unknown member {named}; there are {', '.join(_MEMBERS)}")
    body, kind = _body(one)
    method = given.get("method", "GET" if body is None else "POST")
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise _Unusable(f"method must be one of {', '.join(METHODS)}")
    if method.upper() == "GET" and body:
        raise _Unusable("method GET takes no body")
    headers = _headers(given.get("headers"))
    if kind and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = kind
    return Request(
        method=method.upper(),
        url=_url(given.get("url"), allow_http=allow_http),
        headers=headers,
        body=body or b"",
        items=(item,),
        secrets=(*_secrets(given.get("secrets")), *_credentials(headers)),
    )


def _body(one: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """The body and its content type; None and "" when there is none."""
    for member, kind in (("text", "text/plain; charset=utf-8"), ("json", "application/json")):
        if member in one:
            text = one[member]
            if not isinstance(text, str):
                raise _Unusable("body must be a text, or what JSON can hold")
            try:
                body = text.encode()
            except UnicodeEncodeError:
                raise _Unusable("body holds half a character") from None
            if len(body) > LONGEST_BODY:
                raise _Unusable(f"body is longer than {LONGEST_BODY:,} bytes")
            return body, kind
    return None, ""


def _url(url: Any, *, allow_http: bool) -> str:
    schemes = ("https", "http") if allow_http else ("https",)
    wanted = f"url must be an absolute {' or '.join(schemes)} address"
    if not isinstance(url, str) or not url:
        raise _Unusable(wanted)
    if len(url) > _LONGEST_URL:
        raise _Unusable(f"url is longer than {_LONGEST_URL:,} characters")
    try:
        parts = urlsplit(url)
        port = parts.port  # raises for what is no number
    except ValueError:
        raise _Unusable(wanted) from None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise _Unusable(wanted)
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise _Unusable("url must be ASCII without spaces: use encodeURIComponent for what is put into it")
    if "@" in parts.netloc:
        raise _Unusable("url must hold no user name or password: use the header Authorization")
    if parts.fragment:
        raise _Unusable("url must have no fragment")
    return url


def _headers(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise _Unusable("headers must be an object of texts")
    if len(given) > _MOST_HEADERS:
        raise _Unusable(f"more than {_MOST_HEADERS} headers")
    headers: dict[str, str] = {}
    for name, value in given.items():
        if not _HEADER_NAME.fullmatch(name):
            raise _Unusable("a header has a name that is none")
        if name.lower() in _HOSTS_OWN:
            raise _Unusable(f"header {name} is set by the platform")
        if name.lower() in {other.lower() for other in headers}:
            raise _Unusable(f"header {name} is given twice")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _Unusable(f"header {name} must be a text")
        text = str(value)
        if len(text) > _LONGEST_HEADER or not _HEADER_VALUE.fullmatch(text):
            raise _Unusable(f"header {name} is too long or holds a control character")
        headers[name] = text
    return headers


def _secrets(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise _Unusable("secrets must be a list of texts")
    return tuple(one for one in given if one)


def _credentials(headers: Mapping[str, str]) -> list[str]:
    """What was made of secrets and put into a header for credentials, such as user name and password in Base64."""
    found = []
    for name, value in headers.items():
        if name.lower() in _CREDENTIALS:
            credential = value.partition(" ")[2].strip() or value
            found += [credential] if len(credential) >= _SHORTEST_SECRET else []
    return found
