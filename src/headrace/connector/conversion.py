"""Between the SDK's dataclasses and the messages of `headrace.api.connector.v1`. Both sides of the line use it.

`put_x` fills a message in its place, because a message that is made apart is copied into its parent; `x_of` reads one.
Reading raises ValueError, TypeError or msgspec.MsgspecError for what no plugin may say; what is merely absent has the
default of the dataclass.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from google.protobuf.message import Message

import headrace_sdk as sdk
from headrace.api.connector.v1 import connector_service_pb2 as service
from headrace.api.connector.v1 import item_pb2 as pb
from headrace.api.connector.v1 import manifest_pb2
from headrace.connector import wire

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as _Repeated

MessageT = TypeVar("MessageT", bound=Message)
DataT = TypeVar("DataT")

_json = msgspec.json.Encoder().encode
_any_of_json = msgspec.json.Decoder().decode
_object_of_json = msgspec.json.Decoder(dict[str, Any]).decode
_DELIVERED = sdk.Delivered()

# --- items: what a connector is given


def _object_json(value: Mapping[str, Any]) -> bytes:
    """A JSON object; nothing for an empty one."""
    return _json(value) if value else b""


def _object_of(data: bytes) -> dict[str, Any]:
    return _object_of_json(data) if data else {}


def _put_identifiers(messages: _Repeated[pb.Identifier], identifiers: Mapping[str, Iterable[str]]) -> None:
    for namespace, values in identifiers.items():
        for value in values:
            messages.add(namespace=namespace, value=value)


def _identifiers_of(messages: Iterable[pb.Identifier]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for message in messages:
        found.setdefault(message.namespace, []).append(message.value)
    return found


def put_members(messages: _Repeated[pb.Member], members: Iterable[sdk.Member]) -> None:
    """Members of an audience."""
    for member in members:
        message = messages.add()
        message.profile_id = member.profile_id
        message.fields_json = _object_json(member.fields)


def member_of(message: pb.Member) -> sdk.Member:
    """A member of an audience."""
    return sdk.Member(profile_id=message.profile_id, fields=_object_of(message.fields_json))


def _put_rows(messages: _Repeated[pb.Row], rows: Iterable[sdk.Row]) -> None:
    for row in rows:
        message = messages.add()
        message.key = row.key
        message.data_json = _json(row.data)


def _row_of(message: pb.Row) -> sdk.Row:
    return sdk.Row(key=message.key, data=_any_of_json(message.data_json))


def put_member_batch(message: pb.MemberBatch, batch: sdk.MemberBatch) -> None:
    """Rows to be added or removed."""
    message.now_us = batch.now_us
    _put_rows(message.rows, batch.rows)


def member_batch_of(message: pb.MemberBatch) -> sdk.MemberBatch:
    """Rows to be added or removed."""
    return sdk.MemberBatch(rows=tuple(map(_row_of, message.rows)), now_us=message.now_us)


def put_event_batch(message: pb.EventBatch, batch: sdk.EventBatch) -> None:
    """Events to be sent."""
    message.now_us = batch.now_us
    for event in batch.events:
        _put_event(message.events.add(), event)


def _put_event(message: pb.EventItem, event: sdk.EventItem) -> None:
    message.message_id = event.message_id
    message.kind = event.kind
    message.name = event.name
    message.timestamp_us = event.timestamp_us
    message.received_at_us = event.received_at_us
    message.source_id = event.source_id
    _put_identifiers(message.identifiers, event.identifiers)
    message.group_id = event.group_id
    message.previous_id = event.previous_id
    message.traits_json = _object_json(event.traits)
    message.properties_json = _object_json(event.properties)
    message.context_json = _object_json(event.context)
    if event.profile is not None:
        _put_profile(message.profile, event.profile)
    message.fields_json = _object_json(event.fields)
    message.traceparent = event.traceparent


def _put_profile(message: pb.Profile, profile: sdk.Profile) -> None:
    message.SetInParent()  # also when all of it is empty
    message.id = profile.id
    _put_identifiers(message.identifiers, profile.identifiers)
    message.traits_json = _object_json(profile.traits)
    for purpose, state in profile.consents.items():
        message.consents.add(purpose=purpose, state=state)


def event_batch_of(message: pb.EventBatch) -> sdk.EventBatch:
    """Events to be sent."""
    return sdk.EventBatch(events=tuple(map(_event_of, message.events)), now_us=message.now_us)


def _event_of(message: pb.EventItem) -> sdk.EventItem:
    return sdk.EventItem(
        message_id=message.message_id,
        kind=message.kind,
        name=message.name,
        timestamp_us=message.timestamp_us,
        received_at_us=message.received_at_us,
        source_id=message.source_id,
        identifiers=_identifiers_of(message.identifiers),
        group_id=message.group_id,
        previous_id=message.previous_id,
        traits=_object_of(message.traits_json),
        properties=_object_of(message.properties_json),
        context=_object_of(message.context_json),
        profile=_profile_of(message.profile) if message.HasField("profile") else None,
        fields=_object_of(message.fields_json),
        traceparent=message.traceparent,
    )


def _profile_of(message: pb.Profile) -> sdk.Profile:
    return sdk.Profile(
        id=message.id,
        identifiers=_identifiers_of(message.identifiers),
        traits=_object_of(message.traits_json),
        consents={consent.purpose: consent.state for consent in message.consents},
    )


def put_delete_batch(message: pb.DeleteBatch, batch: sdk.DeleteBatch) -> None:
    """People to be forgotten."""
    message.now_us = batch.now_us
    for subject in batch.subjects:
        found = message.subjects.add(profile_id=subject.profile_id, merged_ids=subject.merged_ids)
        _put_identifiers(found.identifiers, subject.identifiers)


def delete_batch_of(message: pb.DeleteBatch) -> sdk.DeleteBatch:
    """People to be forgotten."""
    subjects = tuple(
        sdk.Subject(
            profile_id=subject.profile_id,
            identifiers=_identifiers_of(subject.identifiers),
            merged_ids=list(subject.merged_ids),
        )
        for subject in message.subjects
    )
    return sdk.DeleteBatch(subjects=subjects, now_us=message.now_us)


# --- requests: what a connector gives back. Lists where there could be maps: the same batch gives the same bytes.


def _put_headers(messages: _Repeated[pb.Header], headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        messages.add(name=name, value=value)


def _headers_of(messages: Iterable[pb.Header]) -> dict[str, str]:
    return {header.name: header.value for header in messages}


def put_request(message: pb.Request, request: sdk.Request) -> None:
    """A request to the vendor."""
    message.method = request.method
    message.url = request.url
    _put_headers(message.headers, request.headers)
    message.body = request.body
    message.items.extend(request.items)
    message.secrets.extend(request.secrets)


def request_of(message: pb.Request) -> sdk.Request:
    """A request to the vendor."""
    return sdk.Request(
        method=message.method,
        url=message.url,
        headers=_headers_of(message.headers),
        body=message.body,
        items=tuple(message.items),
        secrets=tuple(message.secrets),
    )


def put_built(message: pb.BuiltBatch, built: wire.BuiltBatch) -> None:
    """What became of a batch."""
    for request in built.requests:
        put_request(message.requests.add(), request)
    for skip in built.skipped:
        message.skipped.add(item=skip.item, reason=skip.reason, field=skip.field, is_failure=skip.is_failure)
    for note in built.notes:
        message.notes.add(item=note.item, reason=note.reason)


def built_of(message: pb.BuiltBatch) -> wire.BuiltBatch:
    """What became of a batch."""
    return wire.BuiltBatch(
        requests=tuple(map(request_of, message.requests)),
        skipped=tuple(
            sdk.Skip(item=skip.item, reason=skip.reason, field=skip.field, is_failure=skip.is_failure)
            for skip in message.skipped
        ),
        notes=tuple(sdk.Note(item=note.item, reason=note.reason) for note in message.notes),
    )


def put_response(message: pb.Response, response: sdk.Response) -> None:
    """A vendor's answer."""
    message.status = response.status
    _put_headers(message.headers, response.headers)
    message.body = response.body
    message.received_at_us = response.received_at_us


def response_of(message: pb.Response) -> sdk.Response:
    """A vendor's answer."""
    return sdk.Response(
        status=message.status,
        headers=_headers_of(message.headers),
        body=message.body,
        received_at_us=message.received_at_us,
    )


def put_exchange(message: service.Exchange, exchange: tuple[sdk.Request, sdk.Response]) -> None:
    """A request with the vendor's answer."""
    request, response = exchange
    put_request(message.request, request)
    put_response(message.response, response)


def exchange_of(message: service.Exchange) -> tuple[sdk.Request, sdk.Response]:
    """A request with the vendor's answer."""
    return request_of(message.request), response_of(message.response)


def put_check(message: service.Check, check: sdk.Check) -> None:
    """Something that must hold for a destination to work."""
    message.title = check.title
    put_request(message.request, check.request)


def check_of(message: service.Check) -> sdk.Check:
    """Something that must hold for a destination to work."""
    return sdk.Check(title=message.title, request=request_of(message.request))


def put_lists(message: service.ReadListsResponse, found: wire.FoundLists) -> None:
    """Lists at the vendor."""
    for one in found.lists:
        message.lists.add(id=one.id, name=one.name, size=one.size)
    message.next_page = found.next_page
    message.problem = found.problem


def lists_of(message: service.ReadListsResponse) -> wire.FoundLists:
    """Lists at the vendor."""
    lists = tuple(
        sdk.VendorList(id=one.id, name=one.name, size=one.size if one.HasField("size") else None)
        for one in message.lists
    )
    return wire.FoundLists(lists=lists, next_page=message.next_page, problem=message.problem)


def put_member_rows(messages: _Repeated[service.MemberRows], found: Iterable[wire.MemberRows]) -> None:
    """What should be on the list, per member."""
    for member in found:
        message = messages.add()
        _put_rows(message.rows, member.rows)
        if member.rejected is not None:
            rejection = message.rejected
            rejection.SetInParent()  # also when all of it is empty
            rejection.reason = member.rejected.reason
            rejection.field = member.rejected.field


def member_rows_of(message: service.MemberRows) -> wire.MemberRows:
    """What should be on the list for one member."""
    rows = tuple(map(_row_of, message.rows))
    if not message.HasField("rejected"):
        return wire.MemberRows(rows=rows)
    return wire.MemberRows(
        rows=rows, rejected=sdk.Rejected(reason=message.rejected.reason, field=message.rejected.field)
    )


def put_read_results(messages: _Repeated[service.ReadResult], results: Iterable[wire.ReadResult]) -> None:
    """What answers mean."""
    for result in results:
        message = messages.add()
        found = result.outcomes
        if found is None:
            message.failure = result.failure
            continue
        outcomes = message.outcomes
        outcomes.SetInParent()  # also when all of it is empty
        outcomes.unauthorized = found.unauthorized
        outcomes.misconfigured = found.misconfigured
        outcomes.refused_whole = found.refused_whole
        if found.throttle_s is not None:
            outcomes.throttle_s = found.throttle_s
        for outcome in found.items:
            _put_outcome(outcomes.items.add(), outcome)


def read_result_of(message: service.ReadResult) -> wire.ReadResult:
    """What one answer means."""
    if not message.HasField("outcomes"):
        return wire.ReadResult(failure=message.failure)
    found = message.outcomes
    outcomes = sdk.Outcomes(
        items=tuple(map(_outcome_of, found.items)),
        unauthorized=found.unauthorized,
        misconfigured=found.misconfigured,
        refused_whole=found.refused_whole,
        throttle_s=found.throttle_s if found.HasField("throttle_s") else None,
    )
    return wire.ReadResult(outcomes=outcomes)


def _put_outcome(message: pb.Outcome, outcome: sdk.Outcome) -> None:
    if isinstance(outcome, sdk.Delivered):
        message.kind = pb.OUTCOME_KIND_DELIVERED
        return
    if isinstance(outcome, sdk.Pending):
        message.kind = pb.OUTCOME_KIND_PENDING
        message.job = outcome.job
        message.after_s = outcome.after_s
        return
    if isinstance(outcome, sdk.Retry):
        message.kind = pb.OUTCOME_KIND_RETRY
        if outcome.after_s is not None:
            message.after_s = outcome.after_s
    elif isinstance(outcome, sdk.Rejected):
        message.kind = pb.OUTCOME_KIND_REJECTED
        message.field = outcome.field
    elif isinstance(outcome, sdk.Warned):
        message.kind = pb.OUTCOME_KIND_WARNED
    else:
        raise TypeError(f"an outcome is a {type(outcome).__name__}")
    message.reason = outcome.reason


def _outcome_of(message: pb.Outcome) -> sdk.Outcome:
    kind = message.kind
    if kind == pb.OUTCOME_KIND_DELIVERED:
        return _DELIVERED
    after_s = message.after_s if message.HasField("after_s") else None
    if kind == pb.OUTCOME_KIND_WARNED:
        return sdk.Warned(reason=message.reason)
    if kind == pb.OUTCOME_KIND_REJECTED:
        return sdk.Rejected(reason=message.reason, field=message.field)
    if kind == pb.OUTCOME_KIND_RETRY:
        return sdk.Retry(reason=message.reason, after_s=after_s)
    if kind == pb.OUTCOME_KIND_PENDING:
        return sdk.Pending(job=message.job) if after_s is None else sdk.Pending(job=message.job, after_s=after_s)
    raise ValueError("an outcome has no kind")


def put_normalised(messages: _Repeated[service.NormalisedValue], values: Iterable[wire.NormalisedValue]) -> None:
    """Values on their way to the vendor."""
    for value in values:
        messages.add(normalised=value.normalised, sent=value.sent, rejected=value.rejected)


def normalised_of(message: service.NormalisedValue) -> wire.NormalisedValue:
    """A value on its way to the vendor."""
    return wire.NormalisedValue(
        normalised=message.normalised if message.HasField("normalised") else None,
        sent=message.sent if message.HasField("sent") else None,
        rejected=message.rejected if message.HasField("rejected") else None,
    )


# --- manifests: read once per start, so by the names of their fields

_SCHEMES: Mapping[str, type[sdk.Auth]] = {
    "api_key": sdk.ApiKey,
    "bearer": sdk.Bearer,
    "basic": sdk.Basic,
    "oauth2": sdk.OAuth2,
    "service_account": sdk.ServiceAccount,
    "signed": sdk.Signed,
    "aws_signature": sdk.AwsSignature,
}
_NESTED = ("fields", "batch", "limits", "retry", "auth", "versions", "any_of", "events", "removal_keys")
_FILLED_BY_HOST = ("plugin", "version")


def info_message(info: wire.ConnectorInfo) -> manifest_pb2.Manifest:
    """A manifest as data."""
    message = manifest_pb2.Manifest(
        settings_schema_json=_json(info.settings_schema),
        fields=[_flat_message(manifest_pb2.Field, field) for field in info.fields],
        batch=_flat_message(manifest_pb2.BatchPolicy, info.batch),
        limits=[_flat_message(manifest_pb2.RateLimit, limit) for limit in info.limits],
        retry=_flat_message(manifest_pb2.RetryPolicy, info.retry),
        auth=_auth_message(info.auth) if info.auth is not None else None,
        versions=_flat_message(manifest_pb2.ApiVersions, info.versions) if info.versions is not None else None,
        any_of=[manifest_pb2.FieldNames(names=names) for names in info.any_of],
        events=[_flat_message(manifest_pb2.StandardEvent, event) for event in info.events],
        removal_keys=[manifest_pb2.FieldNames(names=names) for names in info.removal_keys],
    )
    rest = _flat_message(manifest_pb2.Manifest, info, leave=(*_NESTED, *_FILLED_BY_HOST, "settings_schema"))
    message.MergeFrom(rest)
    return message


def info_of(message: manifest_pb2.Manifest) -> wire.ConnectorInfo:
    """A manifest as data."""
    nested: dict[str, Any] = {
        "settings_schema": _object_of_json(message.settings_schema_json),
        "fields": tuple(_flat_of(sdk.Field, field) for field in message.fields),
        "batch": _flat_of(sdk.BatchPolicy, message.batch),
        "limits": tuple(_flat_of(sdk.RateLimit, limit) for limit in message.limits),
        "retry": _flat_of(sdk.RetryPolicy, message.retry),
        "any_of": tuple(tuple(group.names) for group in message.any_of),
        "events": tuple(_flat_of(sdk.StandardEvent, event) for event in message.events),
        "removal_keys": tuple(tuple(keys.names) for keys in message.removal_keys),
    }
    scheme = message.auth.WhichOneof("scheme")
    if scheme is not None:
        nested["auth"] = _flat_of(_SCHEMES[scheme], getattr(message.auth, scheme))
    if message.HasField("versions"):
        nested["versions"] = _flat_of(sdk.ApiVersions, message.versions)
    return _flat_of(wire.ConnectorInfo, message, leave=(*_NESTED, *_FILLED_BY_HOST, "settings_schema"), **nested)


def _auth_message(auth: sdk.Auth) -> manifest_pb2.Auth:
    found = manifest_pb2.Auth()
    (name,) = [name for name, kind in _SCHEMES.items() if isinstance(auth, kind)]
    part = getattr(found, name)
    part.SetInParent()  # also when all of it is empty
    part.MergeFrom(_flat_message(type(part), auth))
    return found


def _flat_message(kind: type[MessageT], data: Any, leave: Iterable[str] = ()) -> MessageT:
    """A message with the fields of a dataclass: texts, numbers, enums, and tuples and maps of texts."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(data):
        if field.name in leave:
            continue
        value = getattr(data, field.name)
        if isinstance(value, enum.Enum):
            value = str(value)
        elif isinstance(value, tuple | frozenset):
            value = sorted(map(str, value)) if isinstance(value, frozenset) else [str(item) for item in value]
        values[field.name] = value
    return kind(**values)


def _flat_of(kind: type[DataT], message: Message, leave: Iterable[str] = (), **more: Any) -> DataT:
    """The reverse; what the message does not set has the dataclass's default."""
    hints = typing.get_type_hints(kind)
    values = dict(more)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # all kinds are dataclasses
        if field.name in leave:
            continue
        declared = message.DESCRIPTOR.fields_by_name[field.name]
        value = getattr(message, field.name)
        is_set = message.HasField(field.name) if declared.has_presence else bool(value)
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if not is_set and has_default:
            continue
        values[field.name] = _value_of(hints[field.name], value)
    return kind(**values)


def _value_of(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (tuple, frozenset):
        return origin(value)
    if origin is Mapping or isinstance(value, Mapping):
        return dict(value)
    return hint(value) if isinstance(hint, type) and issubclass(hint, enum.Enum) else value
