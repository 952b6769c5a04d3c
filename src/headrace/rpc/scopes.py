"""Scopes of API tokens: what a token may do in its workspace."""

from __future__ import annotations

EVENTS_WRITE = "events:write"
SOURCES_READ = "sources:read"
SOURCES_WRITE = "sources:write"
PROFILES_READ = "profiles:read"
PROFILES_WRITE = "profiles:write"
IDENTITY_READ = "identity:read"
IDENTITY_WRITE = "identity:write"
AUDIENCES_READ = "audiences:read"
AUDIENCES_WRITE = "audiences:write"
DESTINATIONS_READ = "destinations:read"
DESTINATIONS_WRITE = "destinations:write"
SYNCS_READ = "syncs:read"
SYNCS_WRITE = "syncs:write"
WORKSPACE_ADMIN = "workspace:admin"

EVERYTHING = "*"
"""All scopes, still only in the token's workspace."""

SCOPES = frozenset(
    {
        EVENTS_WRITE,
        SOURCES_READ,
        SOURCES_WRITE,
        PROFILES_READ,
        PROFILES_WRITE,
        IDENTITY_READ,
        IDENTITY_WRITE,
        AUDIENCES_READ,
        AUDIENCES_WRITE,
        DESTINATIONS_READ,
        DESTINATIONS_WRITE,
        SYNCS_READ,
        SYNCS_WRITE,
        WORKSPACE_ADMIN,
    }
)
"""Every scope but "*". A scope to write does not include the one to read."""
