"""The calls that a plugin answers, each with its messages: one table for the host and for the process that serves.

A new call is an rpc in the protos, a row here, and a method of `Calls` and of the host's `ConnectorInstance`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from headrace.api.connector.v1 import connector_service_pb2 as pb
from headrace.connector import conversion, wire
from headrace_sdk import API_VERSION, Check, DeleteBatch, EventBatch, Job, Member, MemberBatch, Request, Response

SERVICE = pb.DESCRIPTOR.services_by_name["ConnectorService"].full_name
"""Full name of the gRPC service."""

SOCKET_VARIABLE = "HEADRACE_CONNECTOR_SOCKET"
"""Environment variable with the path of the UNIX socket that a plugin's process has to serve on."""

MAX_MESSAGE_BYTES = 128 * 1024 * 1024
"""Largest message. Neither side sends or takes a longer one."""

MESSAGE_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
"""gRPC options of both sides."""

WRONG_SHAPE = (DecodeError, msgspec.MsgspecError, ValueError, TypeError, AttributeError, RecursionError)
"""What reading or making a message raises when something in it is not what it should be."""

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Settings:
    """Argument of OPEN: the connector, and the settings of the instance that is to be made."""

    connector: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Values:
    """Argument of NORMALISE: (field, value) pairs, and the connector that is asked where there is no instance."""

    values: Sequence[tuple[str, str]]
    connector: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Operation(Generic[ArgumentT, ResultT]):
    """A call.

    Attributes:
        name: As reasons and metrics call it.
        rpc: Name of the gRPC method.
        request: Its request message.
        response: Its response message.
        request_message: Makes the request from an instance's id and the argument.
        argument_of: Reads the argument.
        response_message: Makes the response.
        result_of: Reads the result.
    """

    name: str
    rpc: str
    request: type[Message]
    response: type[Message]
    request_message: Callable[[str, ArgumentT], Message]
    argument_of: Callable[[Any], ArgumentT]
    response_message: Callable[[ResultT], Message]
    result_of: Callable[[Any], ResultT]

    @property
    def path(self) -> str:
        """Path of the gRPC method."""
        return f"/{SERVICE}/{self.rpc}"


def _problem_message(problem: wire.SettingsProblem | None) -> Message:
    if problem is None:
        return pb.OpenInstanceResponse()
    others = [pb.SettingsProblem(reason=one.reason, field=one.field) for one in problem.others]
    return pb.OpenInstanceResponse(
        problem=pb.SettingsProblem(reason=problem.reason, field=problem.field, others=others)
    )


def _problem_of(message: pb.OpenInstanceResponse) -> wire.SettingsProblem | None:
    if not message.HasField("problem"):
        return None
    others = tuple(wire.SettingsProblem(reason=one.reason, field=one.field) for one in message.problem.others)
    return wire.SettingsProblem(reason=message.problem.reason, field=message.problem.field, others=others)


def _building(
    name: str,
    rpc: str,
    messages: tuple[type[Message], type[Message]],
    put_batch: Callable[[Any, ArgumentT], None],
    batch_of: Callable[[Any], ArgumentT],
) -> Operation[ArgumentT, wire.BuiltBatch]:
    """A call that makes requests of a batch."""
    request: Any
    response: Any
    request, response = messages  # all have the fields `instance` and `batch`, and `built`

    def request_message(instance: str, batch: ArgumentT) -> Message:
        message = request(instance=instance)
        put_batch(message.batch, batch)
        return message  # type: ignore[no-any-return]

    def response_message(built: wire.BuiltBatch) -> Message:
        message = response()
        conversion.put_built(message.built, built)
        return message  # type: ignore[no-any-return]

    return Operation(
        name=name,
        rpc=rpc,
        request=request,
        response=response,
        request_message=request_message,
        argument_of=lambda message: batch_of(message.batch),
        response_message=response_message,
        result_of=lambda message: conversion.built_of(message.built),
    )


def _rows_request(instance: str, members: Sequence[Member]) -> Message:
    message = pb.BuildRowsRequest(instance=instance)
    conversion.put_members(message.members, members)
    return message


def _rows_response(found: Sequence[wire.MemberRows]) -> Message:
    message = pb.BuildRowsResponse()
    conversion.put_member_rows(message.members, found)
    return message


def _read_request(instance: str, exchanges: Sequence[tuple[Request, Response]]) -> Message:
    message = pb.ReadResponsesRequest(instance=instance)
    for exchange in exchanges:
        conversion.put_exchange(message.exchanges.add(), exchange)
    return message


def _read_response(results: Sequence[wire.ReadResult]) -> Message:
    message = pb.ReadResponsesResponse()
    conversion.put_read_results(message.results, results)
    return message


def _normalise_request(instance: str, asked: Values) -> Message:
    message = pb.NormaliseValuesRequest(instance=instance, connector=asked.connector)
    for field, value in asked.values:
        message.values.add(field=field, value=value)
    return message


def _normalise_response(found: Sequence[wire.NormalisedValue]) -> Message:
    message = pb.NormaliseValuesResponse()
    conversion.put_normalised(message.values, found)
    return message


def _asking(
    name: str,
    messages: tuple[type[Message], type[Message]],
    request_message: Callable[[str, ArgumentT], Message],
    argument_of: Callable[[Any], ArgumentT],
) -> Operation[ArgumentT, Request]:
    """A call that makes one request."""
    response: Any
    request, response = messages  # the response has the field `request`

    def response_message(made: Request) -> Message:
        message = response()
        conversion.put_request(message.request, made)
        return message  # type: ignore[no-any-return]

    return Operation(
        name=name,
        rpc=request.DESCRIPTOR.name.removesuffix("Request"),
        request=request,
        response=response,
        request_message=request_message,
        argument_of=argument_of,
        response_message=response_message,
        result_of=lambda message: conversion.request_of(message.request),
    )


def _checks_response(checks: Sequence[Check]) -> Message:
    message = pb.BuildChecksResponse()
    for check in checks:
        conversion.put_check(message.checks.add(), check)
    return message


def _read_check_request(instance: str, asked: tuple[Check, Response]) -> Message:
    message = pb.ReadCheckRequest(instance=instance)
    conversion.put_check(message.check, asked[0])
    conversion.put_response(message.response, asked[1])
    return message


def _read_lists_request(instance: str, exchange: tuple[Request, Response]) -> Message:
    message = pb.ReadListsRequest(instance=instance)
    conversion.put_exchange(message.exchange, exchange)
    return message


def _read_lists_response(found: wire.FoundLists) -> Message:
    message = pb.ReadListsResponse()
    conversion.put_lists(message, found)
    return message


def _deliver_request(instance: str, asked: wire.ToDeliver) -> Message:
    message = pb.DeliverRequest(instance=instance, timeout_s=asked.timeout_s, allow_private=asked.allow_private)
    conversion.put_request(message.request, asked.request)
    return message


def _deliver_response(found: wire.Delivery) -> Message:
    message = pb.DeliverResponse(unsent=found.unsent, lost=found.lost, refused=found.refused)
    if found.response is not None:
        conversion.put_response(message.response, found.response)
    return message


def _delivery_of(message: pb.DeliverResponse) -> wire.Delivery:
    found = wire.Delivery(
        response=conversion.response_of(message.response) if message.HasField("response") else None,
        unsent=message.unsent,
        lost=message.lost,
        refused=message.refused,
    )
    if [found.response is not None, *map(bool, (found.unsent, found.lost, found.refused))].count(True) != 1:
        raise ValueError("exactly one field must be set")
    return found


LOAD: Operation[None, list[wire.ConnectorInfo]] = Operation(
    name="load",
    rpc="DescribeConnectors",
    request=pb.DescribeConnectorsRequest,
    response=pb.DescribeConnectorsResponse,
    request_message=lambda _, __: pb.DescribeConnectorsRequest(api=API_VERSION),
    argument_of=lambda _: None,
    response_message=lambda found: pb.DescribeConnectorsResponse(connectors=map(conversion.info_message, found)),
    result_of=lambda message: [conversion.info_of(manifest) for manifest in message.connectors],
)
OPEN: Operation[Settings, wire.SettingsProblem | None] = Operation(
    name="open",
    rpc="OpenInstance",
    request=pb.OpenInstanceRequest,
    response=pb.OpenInstanceResponse,
    request_message=lambda instance, settings: pb.OpenInstanceRequest(
        instance=instance, connector=settings.connector, settings_json=msgspec.json.encode(settings.values)
    ),
    argument_of=lambda message: Settings(
        message.connector, msgspec.json.decode(message.settings_json, type=dict[str, Any])
    ),
    response_message=_problem_message,
    result_of=_problem_of,
)
CLOSE: Operation[None, None] = Operation(
    name="close",
    rpc="CloseInstance",
    request=pb.CloseInstanceRequest,
    response=pb.CloseInstanceResponse,
    request_message=lambda instance, _: pb.CloseInstanceRequest(instance=instance),
    argument_of=lambda _: None,
    response_message=lambda _: pb.CloseInstanceResponse(),
    result_of=lambda _: None,
)
ROWS: Operation[Sequence[Member], list[wire.MemberRows]] = Operation(
    name="rows",
    rpc="BuildRows",
    request=pb.BuildRowsRequest,
    response=pb.BuildRowsResponse,
    request_message=_rows_request,
    argument_of=lambda message: [conversion.member_of(member) for member in message.members],
    response_message=_rows_response,
    result_of=lambda message: [conversion.member_rows_of(member) for member in message.members],
)
ADD_MEMBERS: Operation[MemberBatch, wire.BuiltBatch] = _building(
    "add_members",
    "AddMembers",
    (pb.AddMembersRequest, pb.AddMembersResponse),
    conversion.put_member_batch,
    conversion.member_batch_of,
)
REMOVE_MEMBERS: Operation[MemberBatch, wire.BuiltBatch] = _building(
    "remove_members",
    "RemoveMembers",
    (pb.RemoveMembersRequest, pb.RemoveMembersResponse),
    conversion.put_member_batch,
    conversion.member_batch_of,
)
SEND_EVENTS: Operation[EventBatch, wire.BuiltBatch] = _building(
    "send_events",
    "SendEvents",
    (pb.SendEventsRequest, pb.SendEventsResponse),
    conversion.put_event_batch,
    conversion.event_batch_of,
)
DELETE: Operation[DeleteBatch, wire.BuiltBatch] = _building(
    "delete",
    "DeletePeople",
    (pb.DeletePeopleRequest, pb.DeletePeopleResponse),
    conversion.put_delete_batch,
    conversion.delete_batch_of,
)
READ: Operation[Sequence[tuple[Request, Response]], list[wire.ReadResult]] = Operation(
    name="read",
    rpc="ReadResponses",
    request=pb.ReadResponsesRequest,
    response=pb.ReadResponsesResponse,
    request_message=_read_request,
    argument_of=lambda message: [conversion.exchange_of(exchange) for exchange in message.exchanges],
    response_message=_read_response,
    result_of=lambda message: [conversion.read_result_of(result) for result in message.results],
)
NORMALISE: Operation[Values, list[wire.NormalisedValue]] = Operation(
    name="normalise",
    rpc="NormaliseValues",
    request=pb.NormaliseValuesRequest,
    response=pb.NormaliseValuesResponse,
    request_message=_normalise_request,
    argument_of=lambda message: Values([(pair.field, pair.value) for pair in message.values], message.connector),
    response_message=_normalise_response,
    result_of=lambda message: [conversion.normalised_of(value) for value in message.values],
)
POLL: Operation[Job, Request] = _asking(
    "poll",
    (pb.PollJobRequest, pb.PollJobResponse),
    lambda instance, job: pb.PollJobRequest(instance=instance, job=job.id, items=job.items, now_us=job.now_us),
    lambda message: Job(id=message.job, items=message.items, now_us=message.now_us),
)
CHECKS: Operation[None, list[Check]] = Operation(
    name="check",
    rpc="BuildChecks",
    request=pb.BuildChecksRequest,
    response=pb.BuildChecksResponse,
    request_message=lambda instance, _: pb.BuildChecksRequest(instance=instance),
    argument_of=lambda _: None,
    response_message=_checks_response,
    result_of=lambda message: [conversion.check_of(check) for check in message.checks],
)
READ_CHECK: Operation[tuple[Check, Response], str] = Operation(
    name="read_check",
    rpc="ReadCheck",
    request=pb.ReadCheckRequest,
    response=pb.ReadCheckResponse,
    request_message=_read_check_request,
    argument_of=lambda message: (conversion.check_of(message.check), conversion.response_of(message.response)),
    response_message=lambda problem: pb.ReadCheckResponse(problem=problem),
    result_of=lambda message: str(message.problem),
)
LISTS: Operation[str, Request] = _asking(
    "lists",
    (pb.AskListsRequest, pb.AskListsResponse),
    lambda instance, page: pb.AskListsRequest(instance=instance, page=page),
    lambda message: str(message.page),
)
CREATE_LIST: Operation[str, Request] = _asking(
    "create_list",
    (pb.AskNewListRequest, pb.AskNewListResponse),
    lambda instance, name: pb.AskNewListRequest(instance=instance, name=name),
    lambda message: str(message.name),
)
READ_LISTS: Operation[tuple[Request, Response], wire.FoundLists] = Operation(
    name="read_lists",
    rpc="ReadLists",
    request=pb.ReadListsRequest,
    response=pb.ReadListsResponse,
    request_message=_read_lists_request,
    argument_of=lambda message: conversion.exchange_of(message.exchange),
    response_message=_read_lists_response,
    result_of=conversion.lists_of,
)
DELIVER: Operation[wire.ToDeliver, wire.Delivery] = Operation(
    name="deliver",
    rpc="Deliver",
    request=pb.DeliverRequest,
    response=pb.DeliverResponse,
    request_message=_deliver_request,
    argument_of=lambda message: wire.ToDeliver(
        request=conversion.request_of(message.request),
        timeout_s=message.timeout_s,
        allow_private=message.allow_private,
    ),
    response_message=_deliver_response,
    result_of=_delivery_of,
)

WAITING = (CLOSE, DELIVER)
"""Calls in which a connector may wait; in all others it never does."""

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    LOAD,
    OPEN,
    CLOSE,
    ROWS,
    ADD_MEMBERS,
    REMOVE_MEMBERS,
    SEND_EVENTS,
    DELETE,
    READ,
    NORMALISE,
    POLL,
    CHECKS,
    READ_CHECK,
    LISTS,
    CREATE_LIST,
    READ_LISTS,
    DELIVER,
)
"""All of them."""
