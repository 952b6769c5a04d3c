"""The one door to vendors: HTTP requests with a guard against addresses that no vendor has.

A destination's URL comes from a customer, so it may point at the inside of the cluster. The guard takes hosts in their
plain forms alone, refuses every address that is not public, and follows no redirect. What counts is the last check: no
socket is made for an address that is not public, however it was come by (a name that answers differently the second
time, a form of an address that is normalised on the way).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from headrace.connector.addresses import check_host, is_public
from headrace.domain.times import now_us
from headrace_sdk import Request, Response

MAX_ANSWER_BYTES = 1 << 20
_USER_AGENT = "headrace/0.1"


class NoAnswer(Exception):
    """The vendor gave no complete answer.

    Attributes:
        reason: A sentence without address or personal data.
        sent: True when the request may have reached the vendor.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class AddressRefused(Exception):
    """The address is none that a destination may have."""


def check_url(url: str, *, allow_private: bool) -> None:
    """Refuse what is no absolute http(s) URL of a possible vendor; names are checked again when resolved.

    Raises:
        AddressRefused: With a sentence that says why.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise AddressRefused("the address is no valid URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise AddressRefused("the address must be an absolute http or https URL")
    if parts.username is not None or parts.password is not None:
        raise AddressRefused("the address may hold no user name or password")
    try:
        check_host(host)
    except ValueError as error:
        raise AddressRefused(str(error)) from None
    if not allow_private and _is_private(host):
        raise AddressRefused("the address is private, loopback or link-local")


def _is_private(host: str) -> bool:
    """True for an IP address that is not public; names are judged by what they resolve to."""
    try:
        return not is_public(host)
    except ValueError:
        return False


class GuardedResolver(AbstractResolver):
    """Resolves names and gives only public addresses to the connector, which connects to exactly those.

    A name is asked for once at a time: a name server that does not answer holds one thread, and not all of them.
    """

    def __init__(self, *, allow_private: bool, inner: AbstractResolver | None = None) -> None:
        """Make a resolver.

        Args:
            allow_private: Whether addresses that are not public are given too.
            inner: Who resolves names; None asks the system.
        """
        self._allow_private = allow_private
        self._inner = inner or ThreadedResolver()
        self._asking: dict[tuple[str, int, int], asyncio.Task[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a name.

        Raises:
            OSError: The name has no public address.
        """
        key = (host, port, int(family))
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._inner.resolve(host, port, family))
            asking.add_done_callback(lambda asked: self._answered(key, asked))
        # To its end, whoever gives up meanwhile: a thread that asks cannot be called back.
        found = await asyncio.shield(asking)
        if self._allow_private:
            return found
        public = [answer for answer in found if is_public(answer["host"])]
        if not public:
            raise AddressRefusedError("the name resolves to a private, loopback or link-local address")
        return public

    def _answered(self, key: tuple[str, int, int], asked: asyncio.Task[list[ResolveResult]]) -> None:
        del self._asking[key]
        if not asked.cancelled():
            asked.exception()  # those who asked have it, unless they have all given up

    async def close(self) -> None:
        """Release what the resolver holds."""
        await self._inner.close()


class AddressRefusedError(OSError, AddressRefused):
    """AddressRefused in the form that the connector expects of a resolver."""


def guarded_connector(*, allow_private: bool, resolver: AbstractResolver | None = None) -> aiohttp.TCPConnector:
    """A connector that makes no socket for an address that is not public.

    Args:
        allow_private: Whether private, loopback and link-local addresses may be connected to.
        resolver: Who resolves names; None asks the system.
    """
    return aiohttp.TCPConnector(
        resolver=GuardedResolver(allow_private=allow_private, inner=resolver),
        socket_factory=None if allow_private else _public_socket,
        use_dns_cache=False,
        limit=0,
        limit_per_host=0,
    )


def _public_socket(peer: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that is about to be connected to the address; literals come here without having been resolved."""
    family, kind, protocol, _, address = peer
    try:
        public = is_public(str(address[0]))
    except ValueError:
        public = False
    if not public:
        raise AddressRefusedError("the address is private, loopback or link-local")
    return socket.socket(family=family, type=kind, proto=protocol)


class VendorClient:
    """Sends requests of connectors.

    It has as many connections as are asked for: each destination has its own bound of requests at a time, and a common
    one would let those that do not answer take all of it.

    Attributes:
        allow_private: Whether private, loopback and link-local addresses may be connected to.
    """

    def __init__(self, *, allow_private: bool, resolver: AbstractResolver | None = None) -> None:
        """Make a client.

        Args:
            allow_private: Whether private, loopback and link-local addresses may be connected to.
            resolver: Who resolves names; None asks the system.
        """
        self.allow_private = allow_private
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(allow_private=allow_private, resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers={"User-Agent": _USER_AGENT},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, request: Request, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> Response:
        """Send a request once.

        Args:
            request: The request.
            timeout_s: Seconds for all of it, from connecting to the last byte of the answer.
            headers: Headers to add, unless the request has them.

        Raises:
            AddressRefused: The guard refused the address; nothing was sent.
            NoAnswer: No complete answer came.
        """
        check_url(request.url, allow_private=self.allow_private)
        merged = {**(headers or {}), **request.headers}
        try:
            async with self._session.request(
                request.method,
                request.url,
                data=request.body or None,
                headers=merged,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                body = await _bounded(answer)
                return Response(
                    status=answer.status,
                    headers={name.lower(): value for name, value in answer.headers.items()},
                    body=body,
                    received_at_us=now_us(),
                )
        except AddressRefused:
            raise
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, AddressRefused):
                raise AddressRefused(str(error.os_error)) from None
            raise NoAnswer("the destination's host name could not be resolved", sent=False) from None
        except aiohttp.ClientConnectorCertificateError:
            raise NoAnswer("the destination's certificate is not valid", sent=False) from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefused):
                raise AddressRefused(str(error.os_error)) from None
            raise NoAnswer("no connection to the destination", sent=False) from None
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout_s:g} s", sent=True) from None
        except (aiohttp.InvalidURL, ValueError):
            raise AddressRefused("the request is not valid HTTP") from None
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError) as error:
            raise NoAnswer(f"the connection broke ({type(error).__name__})", sent=True) from None


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    """The answer's body, cut at MAX_ANSWER_BYTES."""
    parts: list[bytes] = []
    size = 0
    async for part in answer.content.iter_chunked(65_536):
        parts.append(part)
        size += len(part)
        if size >= MAX_ANSWER_BYTES:
            answer.close()
            break
    return b"".join(parts)[:MAX_ANSWER_BYTES]
