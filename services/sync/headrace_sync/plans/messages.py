"""Dry runs as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.sync.v1 import plan_pb2
from headrace.storage.mongo.client import Document
from headrace_sync.people.consents import messages, stored
from headrace_sync.plans.dry_run import DryRun


def dry_run_message(made: DryRun) -> plan_pb2.DryRunSyncResponse:
    """A page of a dry run; the caller adds the token of the next one."""
    profiles = {change.message_id: change.profile_id for change in made.changes if change.message_id}
    return plan_pb2.DryRunSyncResponse(
        changes=[
            plan_pb2.PlannedChange(
                profile_id=change.profile_id,
                operation=change.operation,
                reason=change.reason,
                added=change.added,
                removed=change.removed,
                message_id=change.message_id,
                event_name=change.event_name,
                fields=[
                    plan_pb2.PlannedField(name=name, expression=expression, value=value)
                    for name, expression, value in change.fields
                ],
                consents=messages(stored(change.consents)),
            )
            for change in made.changes
        ],
        requests=[_request(shown, profiles) for shown in made.requests],
        unchanged=made.unchanged,
        audience_size=made.audience_size,
        warnings=made.warnings,
    )


def plan_message(document: Document) -> plan_pb2.SyncPlan:
    """A plan as it is stored."""
    message = plan_pb2.SyncPlan(
        id=document["_id"],
        state=plan_pb2.SyncPlanState.ValueType(document["st"]),
        reason=document["r"],
        added=document["added"],
        updated=document["updated"],
        removed=document["removed"],
    )
    message.create_time.FromMicroseconds(document["c"])
    if "ap" in document:
        message.approve_time.FromMicroseconds(document["ap"])
    return message


def _request(shown: dict[str, Any], profiles: Mapping[str, str]) -> plan_pb2.PlannedRequest:
    ids = shown["message_ids"]
    body = shown["body"]
    is_base64 = isinstance(body, dict)
    return plan_pb2.PlannedRequest(
        method=shown["method"],
        url=shown["url"],
        headers=shown["headers"],
        body=body["base64"] if is_base64 else body,
        body_is_base64=is_base64,
        profile_ids=sorted({profiles[id] for id in ids} - {""}) if profiles else ids,
        message_ids=ids if profiles else (),
    )
