"""Storage that keeps S3's documented rules: PutObject and ListObjectsV2 with Signature Version 4, in the path style.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from aiohttp import web

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/s3/aws4_request, "
    r"SignedHeaders=(?P<names>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)
_LONGEST_KEY = 1024


@dataclass
class FakeS3:
    """The storage: `url` for the setting endpoint."""

    access_key: str = "AKIDEXAMPLE"
    secret_key: str = "s3-secret-for-tests"
    region: str = "eu-central-1"
    bucket: str = "shop-events"
    objects: dict[str, bytes] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)
    """Keys in the order in which they came."""
    failures: deque[web.Response] = field(default_factory=deque)
    port: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Address for the setting endpoint."""
        return f"http://127.0.0.1:{self.port}"

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.failures:
            return self.failures.popleft()
        refused = self._refusal(request, body)
        if refused is not None:
            return refused
        raw_path, _, query = request.raw_path.partition("?")
        bucket, _, key = unquote(raw_path).removeprefix("/").partition("/")
        if bucket != self.bucket:
            return error(404, "NoSuchBucket")
        if request.method == "GET" and not key:
            if "list-type=2" not in query.split("&"):
                return error(400, "InvalidArgument")
            return web.Response(text=f"<ListBucketResult><Name>{bucket}</Name></ListBucketResult>")
        if request.method != "PUT" or not key:
            return error(405, "MethodNotAllowed")
        if len(key.encode()) > _LONGEST_KEY:
            return error(400, "KeyTooLongError")
        self.objects[key] = body
        self.puts.append(key)
        return web.Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def _refusal(self, request: web.Request, body: bytes) -> web.Response | None:
        found = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
        if found is None:
            return error(403, "AccessDenied")
        if found["key"] != self.access_key:
            return error(403, "InvalidAccessKeyId")
        if found["region"] != self.region:
            return error(400, "AuthorizationHeaderMalformed")
        moment = request.headers.get("x-amz-date", "")
        signed_at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(datetime.now(UTC) - signed_at) > timedelta(minutes=15) or moment[:8] != found["day"]:
            return error(403, "RequestTimeTooSkewed")
        if request.headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
            return error(400, "XAmzContentSHA256Mismatch")
        names = found["names"].split(";")
        if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names) or names != sorted(names):
            return error(403, "AccessDenied")
        if not hmac.compare_digest(self._signature(request, names, moment), found["signature"]):
            return error(403, "SignatureDoesNotMatch")
        return None

    def _signature(self, request: web.Request, names: list[str], moment: str) -> str:
        path, _, query = request.raw_path.partition("?")
        lines = [request.method, quote(unquote(path), safe="/-_.~"), "&".join(sorted(query.split("&")))]
        lines += [f"{name}:{' '.join(request.headers[name].split())}" for name in names]
        lines += ["", ";".join(names), request.headers["x-amz-content-sha256"]]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        key = f"AWS4{self.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), "sha256").hex()


def error(status: int, code: str) -> web.Response:
    """An error as S3 writes it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>no</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")
