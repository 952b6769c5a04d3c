"""Settings that browser SDKs ask for before they send: enough for Segment's and RudderStack's to run with our host."""

from __future__ import annotations

import re

import msgspec

from headrace.domain.times import format_time_us
from headrace_ingest.http_answers import Scope
from headrace_ingest.http_requests import Head
from headrace_ingest.sources import Source

_encode = msgspec.json.Encoder().encode
_HOST = re.compile(rb"[A-Za-z0-9.:\[\]-]{1,255}")


def public_url(configured: str, scope: Scope, head: Head) -> str:
    """The URL that browsers reach us at: the configured one, else scheme and host of their request.

    The scheme in `scope` is that of X-Forwarded-Proto where a trusted proxy said so (`http_server`).
    """
    if configured:
        return configured.rstrip("/")
    host = head.host.decode("latin-1") if _HOST.fullmatch(head.host) else "localhost"
    return f"{scope['scheme']}://{host}"


def for_segment(write_key: str, url: str, source: Source) -> bytes:
    """What `GET /v1/projects/<write key>/settings` answers: only our own integration, every event allowed."""
    scheme, _, host = url.partition("://")
    allowed = {"__default": {"enabled": True, "integrations": {}}}
    return _encode(
        {
            "integrations": {
                "Segment.io": {
                    "apiKey": write_key,
                    "apiHost": f"{host}/v1",
                    "protocol": scheme,
                    "unbundledIntegrations": [],
                    "addBundledMetadata": True,
                    "maybeBundledConfigIds": {},
                    "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
                }
            },
            "plan": {"track": allowed, "identify": allowed, "group": allowed},
            "edgeFunction": {},
            "analyticsNextEnabled": True,
            "middlewareSettings": {},
            "enabledMiddleware": {},
            "metrics": {"sampleRate": 0},
            "legacyVideoPluginsEnabled": False,
            "remotePlugins": [],
            "source": {"id": source.id},
        }
    )


def for_rudderstack(write_key: str, source: Source) -> bytes:
    """What `GET /sourceConfig` answers: the source, without destinations in the browser."""
    return _encode(
        {
            "source": {
                "id": source.id,
                "name": source.display_name,
                "writeKey": write_key,
                "workspaceId": source.workspace_id,
                "enabled": True,
                "createdAt": format_time_us(source.created_us),
                "updatedAt": format_time_us(source.updated_us),
                "config": {
                    "statsCollection": {"errors": {"enabled": False}, "metrics": {"enabled": False}},
                },
                "sourceDefinition": {"name": "Javascript", "category": None},
                "connections": [],
                "destinations": [],
                "dataplanes": {},
            },
            "updatedAt": format_time_us(source.updated_us),
            "consentManagementMetadata": {"providers": []},
        }
    )
