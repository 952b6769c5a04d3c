"""SourceService: maps protobuf to the handlers of sources and of what they received."""

# ruff: noqa: N802 - the methods are named by the proto
from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from headrace.api.ingest.v1 import source_service_pb2 as pb
from headrace.api.ingest.v1.source_service_pb2_grpc import SourceServiceServicer
from headrace.rpc import errors, names
from headrace.rpc.auth import authorize_name, current_caller
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import EVERYTHING, SOURCES_READ, SOURCES_WRITE
from headrace.storage.mongo.client import Document
from headrace.storage.sealing import SealError
from headrace.telemetry.logs import get_logger
from headrace_ingest.received import Received
from headrace_ingest.source_handlers import SourceHandlers
from headrace_ingest.sources import WEBHOOK, SecretBox, Source

log = get_logger(__name__)

_MAX_REPAIRS = 500


class SourceServicer(SourceServiceServicer):
    """Manages sources over gRPC."""

    def __init__(
        self,
        handlers: SourceHandlers,
        received: Received,
        *,
        secrets: SecretBox,
        request_ids: RequestIds,
        pager: Pager,
    ) -> None:
        """Serve from handlers.

        Args:
            handlers: Makes, changes and deletes sources.
            received: Raw and refused messages.
            secrets: Opens write keys and tokens, for those who may see them.
            request_ids: Repeated calls.
            pager: Page tokens.
        """
        self._handlers = handlers
        self._received = received
        self._secrets = secrets
        self._request_ids = request_ids
        self._pager = pager

    async def CreateSource(self, request: pb.CreateSourceRequest, context: Any) -> pb.CreateSourceResponse:
        """Makes a source with a new write key or webhook token."""
        workspace_id = _parent(SOURCES_WRITE, request.parent)

        async def act() -> pb.CreateSourceResponse:
            source = await self._handlers.create(workspace_id, request.source_id, request.source, request.request_id)
            return pb.CreateSourceResponse(source=_message(source))

        answer = await self._request_ids.once(
            workspace_id, "CreateSource", request.request_id, request, pb.CreateSourceResponse, act
        )
        await self._add_secret(answer.source, workspace_id, request.source_id)
        return answer

    async def GetSource(self, request: pb.GetSourceRequest, context: Any) -> pb.GetSourceResponse:
        """Reads a source."""
        workspace_id, source_id = _name(SOURCES_READ, request.name)
        return pb.GetSourceResponse(source=self._shown(await self._handlers.get(workspace_id, source_id)))

    async def ListSources(self, request: pb.ListSourcesRequest, context: Any) -> pb.ListSourcesResponse:
        """Lists the sources of a workspace, by id."""
        workspace_id = _parent(SOURCES_READ, request.parent)
        size = page_size(request.page_size)
        after = self._pager.decode("ListSources", [request.parent], request.page_token) or ""
        sources = await self._handlers.list(workspace_id, after, size + 1)
        token = ""
        if len(sources) > size:
            token = self._pager.encode("ListSources", [request.parent], sources[size - 1].id)
        return pb.ListSourcesResponse(sources=[self._shown(s) for s in sources[:size]], next_page_token=token)

    async def UpdateSource(self, request: pb.UpdateSourceRequest, context: Any) -> pb.UpdateSourceResponse:
        """Changes a source."""
        workspace_id, source_id = _name(SOURCES_WRITE, request.source.name, "source.name")
        mask = list(request.update_mask.paths) if request.HasField("update_mask") else None

        async def act() -> pb.UpdateSourceResponse:
            source = await self._handlers.update(workspace_id, source_id, request.source, mask)
            return pb.UpdateSourceResponse(source=_message(source))

        answer = await self._request_ids.once(
            workspace_id, "UpdateSource", request.request_id, request, pb.UpdateSourceResponse, act
        )
        await self._add_secret(answer.source, workspace_id, source_id)
        return answer

    async def DeleteSource(self, request: pb.DeleteSourceRequest, context: Any) -> pb.DeleteSourceResponse:
        """Deletes a source; its events stay."""
        workspace_id, source_id = _name(SOURCES_WRITE, request.name)

        async def act() -> pb.DeleteSourceResponse:
            await self._handlers.delete(workspace_id, source_id)
            return pb.DeleteSourceResponse()

        return await self._request_ids.once(
            workspace_id, "DeleteSource", request.request_id, request, pb.DeleteSourceResponse, act
        )

    async def ListSourceMessages(
        self, request: pb.ListSourceMessagesRequest, context: Any
    ) -> pb.ListSourceMessagesResponse:
        """Lists raw messages that a webhook source received, newest first."""
        workspace_id, source_id = _name(SOURCES_READ, request.parent, "parent")
        size = page_size(request.page_size, 50, 500)
        before = self._pager.decode("ListSourceMessages", [request.parent], request.page_token)
        documents = await self._received.raw_messages(workspace_id, source_id, before, size + 1)
        token = ""
        if len(documents) > size:
            token = self._pager.encode("ListSourceMessages", [request.parent], documents[size - 1]["_id"])
        messages = [_source_message(d) for d in documents[:size]]
        return pb.ListSourceMessagesResponse(messages=messages, next_page_token=token)

    async def ListRejectedMessages(
        self, request: pb.ListRejectedMessagesRequest, context: Any
    ) -> pb.ListRejectedMessagesResponse:
        """Lists refused messages with their reasons, newest first."""
        workspace_id = _parent(SOURCES_READ, request.parent)
        source_id = ""
        if request.source:
            of_workspace, source_id = names.parse(names.SOURCE, request.source, "source")
            if of_workspace != workspace_id:
                raise errors.invalid_argument("source", "must be a source of the parent")
        size = page_size(request.page_size, 50, 500)
        bound = [request.parent, request.source, request.message_id]
        before = self._pager.decode("ListRejectedMessages", bound, request.page_token)
        documents = await self._received.rejected_messages(
            workspace_id, source_id, request.message_id, before, size + 1
        )
        token = ""
        if len(documents) > size:
            token = self._pager.encode("ListRejectedMessages", bound, documents[size - 1]["_id"])
        messages = [_rejected_message(d) for d in documents[:size]]
        return pb.ListRejectedMessagesResponse(messages=messages, next_page_token=token)

    async def RepairMessages(self, request: pb.RepairMessagesRequest, context: Any) -> pb.RepairMessagesResponse:
        """Sends refused messages again, repaired; those accepted leave the list."""
        workspace_id = _parent(SOURCES_WRITE, request.parent)
        if not 1 <= len(request.repairs) <= _MAX_REPAIRS:
            raise errors.invalid_argument("repairs", f"must hold 1 to {_MAX_REPAIRS} repairs")

        async def act() -> pb.RepairMessagesResponse:
            repairs = [(repair.id, repair.body) for repair in request.repairs]
            outcomes = await self._received.repair(workspace_id, repairs)
            return pb.RepairMessagesResponse(results=[_outcome(o) for o in outcomes])

        return await self._request_ids.once(
            workspace_id, "RepairMessages", request.request_id, request, pb.RepairMessagesResponse, act
        )

    def _shown(self, source: Source) -> pb.Source:
        """A source as it is shown; its secret only to those who may change it."""
        message = _message(source)
        caller = current_caller()
        if caller.service or not caller.scopes.isdisjoint({SOURCES_WRITE, EVERYTHING}):
            self._put_secret(message, source)
        return message

    async def _add_secret(self, message: pb.Source, workspace_id: str, source_id: str) -> None:
        """Complete an answer after it was remembered for repeats: secrets are stored sealed only."""
        source = await self._handlers.find(workspace_id, source_id)
        if source is not None:  # else it was deleted since the first answer
            self._put_secret(message, source)

    def _put_secret(self, message: pb.Source, source: Source) -> None:
        try:
            secret = self._secrets.open(source)
        except SealError:
            # It still works, because it is looked up by its digest.
            log.exception("a source's secret was sealed with another master key and cannot be shown")
            return
        if source.kind == WEBHOOK:
            message.webhook_token = secret
        else:
            message.write_key = secret


def _message(source: Source) -> pb.Source:
    """A source without its secret."""
    return pb.Source(
        name=source.name,
        display_name=source.display_name,
        kind=source.kind,
        allowed_origins=source.allowed_origins,
        mapping=source.mapping_text,
        disabled=source.disabled,
        create_time=_timestamp(source.created_us),
        update_time=_timestamp(source.updated_us),
        etag=str(source.version),
    )


def _parent(scope: str, name: str) -> str:
    authorize_name(scope, name, "parent")
    return names.parse(names.WORKSPACE, name, "parent")[0]


def _name(scope: str, name: str, field: str = "name") -> tuple[str, str]:
    authorize_name(scope, name, field)
    workspace_id, source_id = names.parse(names.SOURCE, name, field)
    return workspace_id, source_id


def _timestamp(moment_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(moment_us)
    return stamp


def _source_message(document: Document) -> pb.SourceMessage:
    return pb.SourceMessage(
        id=document["_id"],
        receive_time=_timestamp(document["t"]),
        body=bytes(document["b"]),
        content_type=document["c"],
        message_ids=document["m"],
    )


def _rejected_message(document: Document) -> pb.RejectedMessage:
    return pb.RejectedMessage(
        id=document["_id"],
        source=names.format(names.SOURCE, document["w"], document["s"]),
        receive_time=_timestamp(document["t"]),
        code=document["code"],
        reason=document["reason"],
        field=document["field"],
        body=bytes(document["b"]),
        message_id=document["m"],
        body_size=document["n"],
    )


def _outcome(error: errors.ApiError | None) -> status_pb2.Status:
    return errors.OK if error is None else errors.to_status(error)
