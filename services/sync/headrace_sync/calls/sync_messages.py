"""Syncs, passes and deliveries as messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.sync.v1 import sync_service_pb2 as pb
from headrace.rpc import names
from headrace.storage.mongo.client import Document
from headrace_sync.calls.requests import etag
from headrace_sync.config import SyncConfig
from headrace_sync.lists.passes import IN_JOB
from headrace_sync.lists.runs import status_of
from headrace_sync.people import consents
from headrace_sync.plans.messages import plan_message
from headrace_sync.store import WAITING


def sync_message(config: SyncConfig, pending: Document | None = None) -> pb.Sync:
    """A sync, with its plan that waits."""
    return pb.Sync(
        name=config.name,
        display_name=config.display_name,
        kind=pb.SyncKind.ValueType(config.kind),
        destination=names.format(names.DESTINATION, config.workspace_id, config.destination_id),
        audience=config.audience_name if config.audience_id else "",
        event_names=config.event_names,
        mapping=config.mapping,
        send_removals=config.send_removals,
        paused=config.paused,
        create_time=time_message(config.created_us),
        update_time=time_message(config.updated_us),
        etag=etag(config.revision),
        require_approval=config.require_approval,
        most_changed_percent=config.most_changed_percent,
        identifier_values=pb.IdentifierValues.ValueType(config.identifier_values),
        delay_seconds=config.delay_seconds,
        schedule=config.schedule,
        list=config.list_id,
        deleting=config.deleting,
        pending_plan=plan_message(pending) if pending is not None else None,
    )


def run_message(document: Document) -> pb.SyncRun:
    """A pass."""
    return pb.SyncRun(
        id=document["_id"],
        start_time=time_message(document["start"]),
        end_time=time_message(document["end"]) if document["end"] > 0 else None,
        added=document["added"],
        removed=document["removed"],
        failed=document["failed"],
        skipped={entry["r"]: entry["n"] for entry in document["skipped"]},
        error=document["error"],
        held=document.get("held", 0),
        plan_id=document.get("plan", ""),
        pending=max(0, document.get("pending", 0)),
        status=pb.SyncRunStatus.ValueType(status_of(document)),
    )


def delivery_message(sync: SyncConfig, document: Document, exchanges: Mapping[str, Document]) -> pb.Delivery:
    """A delivery, or a member of a list sync.

    Args:
        sync: Its sync.
        document: As it is stored.
        exchanges: What is kept of requests, by id; what is not in it is not shown.
    """
    kept = exchanges.get(document.get("ex", ""))
    exchange = _exchange(kept) if kept is not None else None
    if sync.is_list:
        return pb.Delivery(
            id=document["p"],
            sync=sync.name,
            profile_id=document["p"],
            operation="add" if document["desired"] else "remove",
            state=pb.DeliveryState.ValueType(document["st"]),
            attempts=document.get("at", 0),
            next_attempt_time=time_message(document["due"]) if document.get("due") and not document.get("jb") else None,
            status_code=document.get("sc", 0),
            reason=document.get("r", ""),
            create_time=time_message(document["a"]) if document.get("a") else None,
            update_time=time_message(document["u"]),
            consents=consents.messages(document.get("co", ())),
            exchange=exchange,
        )
    in_job = document["st"] == WAITING and "jb" in document
    return pb.Delivery(
        id=document["m"],
        sync=sync.name,
        message_id=document["m"],
        profile_id=document["p"],
        operation=document["op"],
        state=pb.DeliveryState.ValueType(document["st"]),
        attempts=document["at"],
        next_attempt_time=time_message(document["na"]) if document["st"] == WAITING and not in_job else None,
        status_code=document.get("sc", 0),
        reason=IN_JOB if in_job else document.get("r", ""),
        create_time=time_message(document["c"]),
        update_time=time_message(document["u"]),
        consents=consents.messages(document.get("co", ())),
        exchange=exchange,
    )


def _exchange(document: Document) -> pb.DeliveryExchange:
    return pb.DeliveryExchange(
        time=time_message(document["t"]),
        method=document["m"],
        url=document["u"],
        headers=document["h"],
        body=document["b"],
        items=document["n"],
        status_code=document["sc"],
        answer=document["a"],
    )


def time_message(moment_us: int) -> Timestamp:
    """A moment."""
    time = Timestamp()
    time.FromMicroseconds(moment_us)
    return time
