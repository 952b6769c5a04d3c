"""The calls of IdentityService about rules, previews, rebuilds and alarms: maps messages to calls and back."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1 import identity_service_pb2 as pb
from headrace.rpc import auth, names
from headrace.rpc.errors import etag_mismatch, invalid_argument
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import IDENTITY_READ, IDENTITY_WRITE
from headrace.storage.mongo.client import Database, Document
from headrace_identity import alarms
from headrace_identity.alarms import ADVICE, Alarm, AlarmPosition
from headrace_identity.rebuilds import store as rebuilds
from headrace_identity.rebuilds.store import RebuildStore
from headrace_identity.resolving.rules import Rules, RulesError, parse_text
from headrace_identity.rules_store import RebuildRunning, RulesChanged, RulesInForce, RulesStore

MOST_RULES_BYTES = 100_000
"""Longest rules that are taken, as JSON."""


class RulesCalls:
    """Serves the calls of IdentityService about rules, previews, rebuilds and alarms."""

    def __init__(
        self,
        db: Database,
        rules: RulesStore,
        rebuild_store: RebuildStore,
        request_ids: RequestIds,
        pager: Pager,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve from what keeps rules, rebuilds and alarms; `started` wakes whoever works on rebuilds."""
        self._db = db
        self._rules = rules
        self._rebuilds = rebuild_store
        self._request_ids = request_ids
        self._pager = pager
        self._started = started

    async def GetIdentityRules(self, request: pb.GetIdentityRulesRequest, context: Any) -> pb.GetIdentityRulesResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(IDENTITY_READ, request.name)
        names.parse(names.IDENTITY_RULES, request.name)
        return pb.GetIdentityRulesResponse(identity_rules=await self._in_force(workspace_id))

    async def UpdateIdentityRules(
        self, request: pb.UpdateIdentityRulesRequest, context: Any
    ) -> pb.UpdateIdentityRulesResponse:
        """See the proto."""
        given = request.identity_rules
        workspace_id = auth.authorize_name(IDENTITY_WRITE, given.name, "identity_rules.name")
        names.parse(names.IDENTITY_RULES, given.name, "identity_rules.name")
        rules = _rules("identity_rules.rules", given.rules)
        version = _version(given.etag)

        async def act() -> pb.UpdateIdentityRulesResponse:
            try:
                await self._rules.write(workspace_id, rules.as_json(), version)
            except RulesChanged:
                raise etag_mismatch() from None
            except RebuildRunning as running:
                raise rebuilds.already_running(running) from None
            return pb.UpdateIdentityRulesResponse(identity_rules=await self._in_force(workspace_id))

        return await self._request_ids.once(
            workspace_id, "UpdateIdentityRules", request.request_id, request, pb.UpdateIdentityRulesResponse, act
        )

    async def PreviewIdentityRules(
        self, request: pb.PreviewIdentityRulesRequest, context: Any
    ) -> pb.PreviewIdentityRulesResponse:
        """See the proto."""
        workspace_id = _workspace(IDENTITY_READ, request.parent)
        rules = _rules("rules", request.rules)

        async def act() -> pb.PreviewIdentityRulesResponse:
            document = await self._rebuilds.start_preview(workspace_id, rules, request.request_id)
            self._started()
            return pb.PreviewIdentityRulesResponse(rebuild=_rebuild(document))

        return await self._request_ids.once(
            workspace_id, "PreviewIdentityRules", request.request_id, request, pb.PreviewIdentityRulesResponse, act
        )

    async def StartRebuild(self, request: pb.StartRebuildRequest, context: Any) -> pb.StartRebuildResponse:
        """See the proto."""
        workspace_id = _workspace(IDENTITY_WRITE, request.parent)
        rules = _rules("rules", request.rules) if request.rules else None
        version = _version(request.etag)

        async def act() -> pb.StartRebuildResponse:
            try:
                document = await self._rebuilds.start_rebuild(workspace_id, rules, version, request.request_id)
            except RulesChanged:
                raise etag_mismatch() from None
            self._started()
            return pb.StartRebuildResponse(rebuild=_rebuild(document))

        return await self._request_ids.once(
            workspace_id, "StartRebuild", request.request_id, request, pb.StartRebuildResponse, act
        )

    async def GetRebuild(self, request: pb.GetRebuildRequest, context: Any) -> pb.GetRebuildResponse:
        """See the proto."""
        auth.authorize_name(IDENTITY_READ, request.name)
        document = await self._rebuilds.get(*names.parse(names.REBUILD, request.name))
        return pb.GetRebuildResponse(rebuild=_rebuild(document))

    async def ListRebuilds(self, request: pb.ListRebuildsRequest, context: Any) -> pb.ListRebuildsResponse:
        """See the proto."""
        workspace_id = _workspace(IDENTITY_READ, request.parent)
        size = page_size(request.page_size)
        before = self._pager.decode("ListRebuilds", [request.parent], request.page_token) or ""
        found = await self._rebuilds.page(workspace_id, before, size + 1)
        token = ""
        if len(found) > size:
            token = self._pager.encode("ListRebuilds", [request.parent], rebuilds.id_of(found[size - 1]))
        return pb.ListRebuildsResponse(rebuilds=[_rebuild(d) for d in found[:size]], next_page_token=token)

    async def CancelRebuild(self, request: pb.CancelRebuildRequest, context: Any) -> pb.CancelRebuildResponse:
        """See the proto."""
        auth.authorize_name(IDENTITY_WRITE, request.name)
        document = await self._rebuilds.cancel(*names.parse(names.REBUILD, request.name))
        return pb.CancelRebuildResponse(rebuild=_rebuild(document))

    async def ListIdentityAlarms(
        self, request: pb.ListIdentityAlarmsRequest, context: Any
    ) -> pb.ListIdentityAlarmsResponse:
        """See the proto."""
        workspace_id = _workspace(IDENTITY_READ, request.parent)
        size = page_size(request.page_size)
        position = self._pager.decode("ListIdentityAlarms", [request.parent], request.page_token)
        before = AlarmPosition(*position) if position is not None else None
        found = await alarms.page(self._db, workspace_id, before, size + 1)
        token = ""
        if len(found) > size:
            token = self._pager.encode("ListIdentityAlarms", [request.parent], list(found[size - 1][1]))
        return pb.ListIdentityAlarmsResponse(
            alarms=[_alarm(workspace_id, alarm) for alarm, _ in found[:size]], next_page_token=token
        )

    async def _in_force(self, workspace_id: str) -> pb.IdentityRules:
        return _rules_message(workspace_id, await self._rules.in_force(workspace_id))


def _workspace(scope: str, parent: str) -> str:
    workspace_id = auth.authorize_name(scope, parent, "parent")
    names.parse(names.WORKSPACE, parent, "parent")
    return workspace_id


def _rules(field: str, text: bytes) -> Rules:
    if not text:
        raise invalid_argument(field, "is required")
    if len(text) > MOST_RULES_BYTES:
        raise invalid_argument(field, f"must be at most {MOST_RULES_BYTES} bytes")
    try:
        return parse_text(text)
    except RulesError as error:
        raise invalid_argument(f"{field}.{error.field}" if error.field else field, error.description) from None


def _version(etag: str) -> int | None:
    """The version that an etag stands for; None for none."""
    if not etag:
        return None
    if not etag.isdecimal() or len(etag) > 18:
        raise etag_mismatch()
    return int(etag)


def _rules_message(workspace_id: str, found: RulesInForce) -> pb.IdentityRules:
    return pb.IdentityRules(
        name=names.format(names.IDENTITY_RULES, workspace_id),
        rules=json.dumps(found.rules.as_json(), ensure_ascii=False).encode(),
        version=found.version,
        update_time=_time(found.updated_us) if found.updated_us else None,
        etag=str(found.version),
    )


def _rebuild(document: Document) -> pb.Rebuild:
    rebuild = pb.Rebuild.FromString(document["x"]) if document.get("x") else pb.Rebuild()
    rebuild.name = names.format(names.REBUILD, document["w"], rebuilds.id_of(document))
    rebuild.preview = document["pv"]
    rebuild.state = document["st"]
    rebuild.events_done, rebuild.events_total = document["ev"]
    rebuild.switched, rebuild.to_switch = document["sw"]
    if document["c"]:
        (
            rebuild.profiles_before,
            rebuild.profiles_after,
            rebuild.merging,
            rebuild.splitting,
            rebuild.moved_events,
        ) = document["c"]
    rebuild.error = document["er"]
    rebuild.create_time.CopyFrom(_time(document["t"]))
    if "te" in document:
        rebuild.end_time.CopyFrom(_moment(document["te"]))
    rebuild.rules_version = max(document["v"], 0)
    return rebuild


def _alarm(workspace_id: str, alarm: Alarm) -> pb.IdentityAlarm:
    identifier = None
    if alarm.identifier is not None:
        identifier = IdentifierMessage(namespace=alarm.identifier[0], value=alarm.identifier[1])
    return pb.IdentityAlarm(
        profile=names.format(names.PROFILE, workspace_id, alarm.profile_id) if alarm.profile_id else "",
        kind=alarm.kind,
        count=alarm.number,
        identifier=identifier,
        create_time=_moment(alarm.raised_at) if alarm.raised_at is not None else None,
        advice=ADVICE[alarm.kind],
    )


def _time(moment_us: int) -> Timestamp:
    return Timestamp(seconds=moment_us // 1_000_000, nanos=moment_us % 1_000_000 * 1_000)


def _moment(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
