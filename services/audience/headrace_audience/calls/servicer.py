"""AudienceService: maps protobuf to calls."""

# ruff: noqa: N802 - the methods are named by the proto

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pymongo.errors import PyMongoError

from headrace.api.audience.v1 import audience_service_pb2 as pb
from headrace.api.audience.v1.audience_pb2 import Audience, AudienceChange, AudienceVersion, Member
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceServicer
from headrace.domain.times import LAST_MOMENT_US, now_us, parse_time_us
from headrace.rpc import auth, names
from headrace.rpc.errors import ApiError, invalid_argument, limit_exceeded, unavailable
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager, page_size
from headrace.rpc.scopes import AUDIENCES_READ, AUDIENCES_WRITE
from headrace.storage.mongo.client import Document
from headrace_audience.answers.explaining import Explaining
from headrace_audience.answers.history import MOST_DAYS, Histories
from headrace_audience.answers.outlook import Outlooks
from headrace_audience.answers.overlap import MOST_AUDIENCES as MOST_COMPARED
from headrace_audience.answers.preview import Difference, Preview
from headrace_audience.answers.suggested import SUGGESTED
from headrace_audience.calls.handlers import Audiences, etag_of
from headrace_audience.calls.transitions import warnings
from headrace_audience.calls.watching import MOST_WATCHERS, CursorError, TooManyWatchersError, Watching
from headrace_audience.checks.verify import Verifier
from headrace_audience.definitions.unreadable import UNREADABLE, fault_of, kind_of_members, readable, stand_in
from headrace_audience.filling.versions import Change, Limits, change_of
from headrace_audience.language.text.reading import definition_json
from headrace_audience.language.windows import is_zone
from headrace_audience.store import change_message, state_message

DEFAULT_SAMPLE = 10
MAX_SAMPLE = 100
MAX_PARTS = 1_000
DEFAULT_DAYS = 30


M = TypeVar("M", bound=Message)


class AudienceServicer(AudienceServiceServicer):
    """Serves the handlers over gRPC."""

    def __init__(
        self,
        audiences: Audiences,
        outlooks: Outlooks,
        preview: Preview,
        verifier: Verifier,
        explaining: Explaining,
        histories: Histories,
        limits: Limits,
        watching: Watching,
        pager: Pager,
        request_ids: RequestIds,
    ) -> None:
        """Serve these."""
        self._audiences = audiences
        self._outlooks = outlooks
        self._preview = preview
        self._verifier = verifier
        self._explaining = explaining
        self._histories = histories
        self._limits = limits
        self._watching = watching
        self._pager = pager
        self._request_ids = request_ids

    async def CreateAudience(self, request: pb.CreateAudienceRequest, context: Any) -> pb.CreateAudienceResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(AUDIENCES_WRITE, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        audience_id = names.check_id("audience_id", request.audience_id)

        async def act() -> pb.CreateAudienceResponse:
            document = await self._audiences.create(
                workspace_id,
                audience_id,
                request.audience.display_name,
                request.audience.definition,
                request.request_id,
            )
            unknown = await self._preview.unknown(document)
            return pb.CreateAudienceResponse(audience=await self._message(document, unknown))

        return await self._request_ids.once(
            workspace_id, "CreateAudience", request.request_id, request, pb.CreateAudienceResponse, act
        )

    async def GetAudience(self, request: pb.GetAudienceRequest, context: Any) -> pb.GetAudienceResponse:
        """See the proto."""
        document = await self._audiences.get(*_named(AUDIENCES_READ, request.name))
        return pb.GetAudienceResponse(audience=await self._message(document))

    async def ListAudiences(self, request: pb.ListAudiencesRequest, context: Any) -> pb.ListAudiencesResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(AUDIENCES_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        size = page_size(request.page_size)
        bound = ("ListAudiences", [request.parent, *(["archived"] if request.show_archived else [])])
        after = self._pager.decode(*bound, request.page_token)
        found = await self._audiences.page(workspace_id, after, size + 1, show_archived=request.show_archived)
        page = found[:size]
        token = self._pager.encode(*bound, page[-1]["a"]) if len(found) > size else ""
        return pb.ListAudiencesResponse(audiences=[await self._message(d) for d in page], next_page_token=token)

    async def UpdateAudience(self, request: pb.UpdateAudienceRequest, context: Any) -> pb.UpdateAudienceResponse:
        """See the proto."""
        workspace_id, audience_id = _named(AUDIENCES_WRITE, request.audience.name, "audience.name")
        audience = request.audience
        display_name: str | None = audience.display_name or None
        definition: str | None = audience.definition or None
        if request.HasField("update_mask"):
            paths = set(request.update_mask.paths)
            for path in sorted(paths - {"display_name", "definition", "*"}):
                raise invalid_argument("update_mask", f"{path!r} cannot be changed; display_name and definition can")
            display_name = audience.display_name if paths & {"display_name", "*"} else None
            definition = audience.definition if paths & {"definition", "*"} else None

        async def act() -> pb.UpdateAudienceResponse:
            change = partial(
                self._audiences.update,
                workspace_id,
                audience_id,
                display_name=display_name,
                definition=definition,
                etag=audience.etag,
            )
            difference = None
            unknown: list[str] = []
            if definition is not None:
                planned = await change(validate_only=True)
                difference = await self._difference(planned, definition, is_dry_run=request.validate_only)
                unknown = await self._preview.unknown(planned)
            document = await change(validate_only=request.validate_only, unseen=difference is None)
            answer = pb.UpdateAudienceResponse(audience=await self._message(document, unknown))
            if difference is not None:
                answer.change.CopyFrom(difference)
            return answer

        return await self._request_ids.once(
            workspace_id, "UpdateAudience", request.request_id, request, pb.UpdateAudienceResponse, act
        )

    async def _difference(self, document: Document, definition: str, *, is_dry_run: bool) -> AudienceChange | None:
        """What a definition does to the members that an audience has, before it is stored.

        Args:
            document: What the audience would be.
            definition: The definition.
            is_dry_run: Whether the caller only wants to know it: then everybody is compared, however long that takes.
                Of a change that is stored it is told when it begins a new version of an audience that has members; in a
                large workspace by a sample.
        """
        version = document.get("pending")
        asked = (document["w"], document["a"], definition)
        if is_dry_run:
            found: Difference | None = await self._preview.compare(*asked, exact=True)
        elif version and version["gen"] == document["rev"]:
            found = await self._preview.compare_soon(*asked)
        else:
            return None
        return difference_message(found, bool(version) and self._limits.hold(found.change)) if found else None

    async def _changed(
        self,
        method: str,
        request: Any,
        response: type[M],
        change: Callable[[str, str], Awaitable[Mapping[str, Any]]],
    ) -> M:
        """Carry out a change of one audience once; its answer is the audience as it is then."""
        workspace_id, audience_id = _named(AUDIENCES_WRITE, request.name)

        async def act() -> M:
            # All these answers have the one field; only their classes differ.
            made: M = cast("Any", response)(audience=await self._message(await change(workspace_id, audience_id)))
            return made

        return await self._request_ids.once(workspace_id, method, request.request_id, request, response, act)

    async def DeleteAudience(self, request: pb.DeleteAudienceRequest, context: Any) -> pb.DeleteAudienceResponse:
        """See the proto."""
        workspace_id, audience_id = _named(AUDIENCES_WRITE, request.name)

        async def act() -> pb.DeleteAudienceResponse:
            await self._audiences.delete(workspace_id, audience_id)
            return pb.DeleteAudienceResponse()

        return await self._request_ids.once(
            workspace_id, "DeleteAudience", request.request_id, request, pb.DeleteAudienceResponse, act
        )

    async def ActivateAudience(self, request: pb.ActivateAudienceRequest, context: Any) -> pb.ActivateAudienceResponse:
        """See the proto."""
        return await self._changed("ActivateAudience", request, pb.ActivateAudienceResponse, self._audiences.activate)

    async def PauseAudience(self, request: pb.PauseAudienceRequest, context: Any) -> pb.PauseAudienceResponse:
        """See the proto."""
        return await self._changed("PauseAudience", request, pb.PauseAudienceResponse, self._audiences.pause)

    async def ConfirmAudienceVersion(
        self, request: pb.ConfirmAudienceVersionRequest, context: Any
    ) -> pb.ConfirmAudienceVersionResponse:
        """See the proto."""
        change = partial(self._audiences.confirm, etag=request.etag)
        return await self._changed("ConfirmAudienceVersion", request, pb.ConfirmAudienceVersionResponse, change)

    async def DiscardAudienceVersion(
        self, request: pb.DiscardAudienceVersionRequest, context: Any
    ) -> pb.DiscardAudienceVersionResponse:
        """See the proto."""
        change = partial(self._audiences.discard, etag=request.etag)
        return await self._changed("DiscardAudienceVersion", request, pb.DiscardAudienceVersionResponse, change)

    async def ArchiveAudience(self, request: pb.ArchiveAudienceRequest, context: Any) -> pb.ArchiveAudienceResponse:
        """See the proto."""
        return await self._changed("ArchiveAudience", request, pb.ArchiveAudienceResponse, self._audiences.archive)

    async def RefreshAudience(self, request: pb.RefreshAudienceRequest, context: Any) -> pb.RefreshAudienceResponse:
        """See the proto."""
        return await self._changed("RefreshAudience", request, pb.RefreshAudienceResponse, self._audiences.refresh)

    async def PreviewAudience(self, request: pb.PreviewAudienceRequest, context: Any) -> pb.PreviewAudienceResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(AUDIENCES_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        if not 0 <= request.sample_size <= MAX_SAMPLE:
            raise invalid_argument("sample_size", f"must be 0 to {MAX_SAMPLE}")
        found = await self._preview.preview(
            workspace_id, request.definition, request.sample_size or DEFAULT_SAMPLE, exact=request.exact
        )
        return pb.PreviewAudienceResponse(
            size=found.size.size,
            size_low=found.size.low,
            size_high=found.size.high,
            estimate=found.sampled_people > 0,
            sampled_people=found.sampled_people,
            sample_profile_ids=found.sample,
            evaluate_time=_time(found.at_us),
            warnings=found.warnings,
        )

    async def ListMembers(self, request: pb.ListMembersRequest, context: Any) -> pb.ListMembersResponse:
        """See the proto."""
        workspace_id, audience_id = _named(AUDIENCES_READ, request.parent, "parent")
        size = page_size(request.page_size)
        bound = ("ListMembers", [request.parent])
        after = self._pager.decode(*bound, request.page_token)
        found = await self._audiences.members(workspace_id, audience_id, after, size + 1)
        page = found[:size]
        token = self._pager.encode(*bound, page[-1]["p"]) if len(found) > size else ""
        return pb.ListMembersResponse(
            members=[Member(profile_id=d["p"], since_us=d["since"], version=d["version"]) for d in page],
            next_page_token=token,
        )

    async def ListMembershipChanges(
        self, request: pb.ListMembershipChangesRequest, context: Any
    ) -> pb.ListMembershipChangesResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(AUDIENCES_READ, request.parent, "parent")
        audience_id: str | None = None
        if "/audiences/" in request.parent:
            _, audience_id = names.parse(names.AUDIENCE, request.parent, "parent")
        else:
            names.parse(names.WORKSPACE, request.parent, "parent")
        size = page_size(request.page_size)
        bound = ("ListMembershipChanges", [request.parent, request.message_id, request.profile_id])
        position = self._pager.decode(*bound, request.page_token)
        found = await self._audiences.changes(
            workspace_id,
            audience_id,
            message_id=request.message_id,
            profile_id=request.profile_id,
            before=(position[0], position[1]) if position else None,
            limit=size + 1,
        )
        page = found[:size]
        token = self._pager.encode(*bound, [page[-1]["t"], page[-1]["_id"]]) if len(found) > size else ""
        return pb.ListMembershipChangesResponse(changes=[change_message(d) for d in page], next_page_token=token)

    async def WatchMembership(
        self, request: pb.WatchMembershipRequest, context: Any
    ) -> AsyncIterator[pb.WatchMembershipResponse]:
        """See the proto."""
        workspace_id = auth.authorize_name(AUDIENCES_READ, request.parent, "parent")
        audience_id = ""
        if "/audiences/" in request.parent:
            _, audience_id = names.parse(names.AUDIENCE, request.parent, "parent")
            await self._audiences.get(workspace_id, audience_id)
        else:
            names.parse(names.WORKSPACE, request.parent, "parent")
        bound = ("WatchMembership", [request.parent, request.profile_id])
        not_ours = "was not given by WatchMembership for this parent and profile_id"
        try:
            positions = self._pager.decode(*bound, request.cursor)
        except ApiError:
            raise invalid_argument("cursor", not_ours) from None
        try:
            async for seen in self._watching.follow(workspace_id, audience_id, request.profile_id, positions):
                yield pb.WatchMembershipResponse(
                    changes=[change_message(d) for d in seen.changes],
                    cursor=self._pager.encode(*bound, list(seen.positions)),
                )
        except CursorError:
            raise invalid_argument("cursor", not_ours) from None
        except TooManyWatchersError:
            message = f"{MOST_WATCHERS} callers watch here already: try again, another replica may have room."
            raise limit_exceeded("watchers", message, 1.0) from None
        except PyMongoError:
            raise unavailable("Changes cannot be read at the moment: go on later with the last cursor.") from None

    async def ListProfileAudiences(
        self, request: pb.ListProfileAudiencesRequest, context: Any
    ) -> pb.ListProfileAudiencesResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(AUDIENCES_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        if not request.profile_id:
            raise invalid_argument("profile_id", "is required")
        if len(request.parts) > MAX_PARTS:
            raise invalid_argument("parts", f"must be at most {MAX_PARTS:,}")
        found = await self._outlooks.of(workspace_id, request.profile_id, request.parts)
        return pb.ListProfileAudiencesResponse(
            audiences=[
                pb.ProfileAudience(
                    audience=names.format(names.AUDIENCE, workspace_id, one.audience_id),
                    display_name=one.display_name,
                    since_us=one.since_us,
                    leaves_at_us=one.leaves_at_us,
                )
                for one in found
            ]
        )

    async def VerifyAudience(self, request: pb.VerifyAudienceRequest, context: Any) -> pb.VerifyAudienceResponse:
        """See the proto."""
        named = _named(AUDIENCES_WRITE if request.repair else AUDIENCES_READ, request.name)
        found = await self._verifier.verify(*named, repair=request.repair)
        return pb.VerifyAudienceResponse(
            live_size=found.live_size,
            batch_size=found.batch_size,
            mismatched_profile_ids=found.mismatched[:MAX_SAMPLE],
            evaluate_time=_time(found.at_us),
            mismatch_count=len(found.mismatched),
            corrected_count=found.corrected,
            unanswered_count=found.unanswered,
        )

    async def ExplainMembership(
        self, request: pb.ExplainMembershipRequest, context: Any
    ) -> pb.ExplainMembershipResponse:
        """See the proto."""
        workspace_id, audience_id = _named(AUDIENCES_READ, request.name)
        if not request.profile_id:
            raise invalid_argument("profile_id", "is required")
        if not 0 <= request.at_us <= LAST_MOMENT_US:
            reason = "must be a moment in microseconds since 1970 UTC, up to the year 8941, or 0 for now"
            raise invalid_argument("at_us", reason)
        told = await self._explaining.explain(workspace_id, audience_id, request.profile_id, request.at_us)
        found = told.found
        return pb.ExplainMembershipResponse(
            profile_id=told.profile_id,
            at_us=told.at_us,
            member=found["member"],
            stored_member=told.stored,
            since_us=told.since_us,
            changes_at_us=told.changes_us,
            condition=explained_condition(found["condition"]),
            summary=told.summary,
            missing=found["missing"],
            fewer_possible=found["fewer_possible"],
            refresh_time=_time(told.as_of_us) if told.as_of_us else None,
            next_refresh_time=_time(told.next_us) if told.next_us else None,
            member_now=told.now,
            state=state_message(told.state),
        )

    async def CompareAudiences(self, request: pb.CompareAudiencesRequest, context: Any) -> pb.CompareAudiencesResponse:
        """See the proto."""
        workspace_id = auth.authorize_name(AUDIENCES_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        ids = list(request.audience_ids)
        if not 2 <= len(ids) <= MOST_COMPARED or len(set(ids)) < len(ids):
            raise invalid_argument("audience_ids", f"must be 2 to {MOST_COMPARED} different audiences")
        of = {kind_of_members(await self._audiences.get(workspace_id, audience_id)) for audience_id in ids}
        if len(of) > 1:
            raise invalid_argument("audience_ids", "must all be of people, or all of groups")
        regions = await self._audiences.overlap(workspace_id, ids)
        return pb.CompareAudiencesResponse(
            regions=[pb.AudienceRegion(audience_ids=r.audience_ids, size=r.size) for r in regions],
            union_size=sum(region.size for region in regions),
            intersection_size=sum(region.size for region in regions if len(region.audience_ids) == len(ids)),
        )

    async def GetAudienceHistory(
        self, request: pb.GetAudienceHistoryRequest, context: Any
    ) -> pb.GetAudienceHistoryResponse:
        """See the proto."""
        workspace_id, audience_id = _named(AUDIENCES_READ, request.name)
        if not 0 <= request.days <= MOST_DAYS:
            raise invalid_argument("days", f"must be 0 to {MOST_DAYS}")
        zone = request.time_zone or "UTC"
        if not is_zone(zone):
            raise invalid_argument("time_zone", 'must be a time zone such as "Europe/Berlin"')
        days = await self._histories.days(workspace_id, audience_id, request.days or DEFAULT_DAYS, zone, now_us())
        return pb.GetAudienceHistoryResponse(
            days=[pb.AudienceDay(date=d.date, entered=d.entered, left=d.left, size=d.size) for d in days]
        )

    async def ListSuggestedAudiences(
        self, request: pb.ListSuggestedAudiencesRequest, context: Any
    ) -> pb.ListSuggestedAudiencesResponse:
        """See the proto."""
        auth.authorize_name(AUDIENCES_READ, request.parent, "parent")
        names.parse(names.WORKSPACE, request.parent, "parent")
        return pb.ListSuggestedAudiencesResponse(
            suggestions=[
                pb.SuggestedAudience(
                    audience_id=one.id,
                    display_name=one.display_name,
                    description=one.description,
                    definition=definition_json(one.definition),
                    definition_text=one.definition,
                )
                for one in SUGGESTED
            ]
        )

    async def _message(self, document: Mapping[str, Any], unknown: Sequence[str] = ()) -> Audience:
        """An audience; `unknown` is what was found of a definition that it just got."""
        activated = document.get("activated")
        definition = readable(document) or stand_in(document)
        refreshed = document.get("refreshed") if definition.is_batch else None
        return Audience(
            name=names.format(names.AUDIENCE, document["w"], document["a"]),
            display_name=document["name"],
            definition=document["def"],
            state=state_message(UNREADABLE if fault_of(document) else document["state"]),
            size=await self._audiences.size(document),
            create_time=_time(document["created"]),
            update_time=_time(document["updated"]),
            activate_time=_time(activated) if activated else None,
            etag=etag_of(document),
            refresh_time=_time(refreshed) if refreshed else None,
            next_refresh_time=_time(document["next"]) if definition.refresh_us and document.get("next") else None,
            pending_version=_version(document) if document.get("pending") else None,
            warnings=[*warnings(document), *unknown],
        )


def definition_change(change: Change, held: bool, at_us: int) -> AudienceChange:
    """What a new definition does, as a message."""
    return AudienceChange(
        enter=change.enter,
        leave=change.leave,
        stay=change.stay,
        enter_low=change.enter,
        enter_high=change.enter,
        leave_low=change.leave,
        leave_high=change.leave,
        stay_low=change.stay,
        stay_high=change.stay,
        share=change.share,
        needs_confirmation=held,
        evaluate_time=_time(at_us),
    )


def difference_message(found: Difference, held: bool) -> AudienceChange:
    """The same of one that may be estimated."""
    message = definition_change(found.change, held, found.at_us)
    message.sampled_people, message.estimate = found.sampled_people, found.sampled_people > 0
    message.enter_low, message.enter_high = found.enter.low, found.enter.high
    message.leave_low, message.leave_high = found.leave.low, found.leave.high
    message.stay_low, message.stay_high = found.stay.low, found.stay.high
    return message


def _version(document: Mapping[str, Any]) -> AudienceVersion:
    version = document["pending"]
    change = change_of(document)
    return AudienceVersion(
        definition=version["def"],
        create_time=_time(version["at"]),
        change=definition_change(change, version["held"], version["counted"]) if change else None,
        needs_confirmation=version["held"],
    )


def explained_condition(found: Mapping[str, Any]) -> pb.ExplainedCondition:
    """What `offline.explain` says of a condition, as a message."""
    values = found.get("values", [])
    events = [
        _explained_event(event, values[place] if place < len(values) else None)
        for place, event in enumerate(found.get("events", []))
    ]
    set_by = found.get("set_by")
    return pb.ExplainedCondition(
        text=found["text"],
        kind=found["kind"],
        holds=found["holds"],
        changes_at_us=parse_time_us(found["changes_at"]) if found["changes_at"] else 0,
        parts=[explained_condition(part) for part in found.get("parts", [])],
        counted=found.get("counted", 0),
        events=events,
        set_by=_explained_event(set_by, found.get("value")) if set_by else None,
        sentence=found["sentence"],
        value=_value_json(found["value"]) if found["kind"] == "computed" else b"",
        members=found.get("members", 0),
        members_holding=found.get("members_holding", 0),
        holding_profile_ids=found.get("some_holding", []),
        lacking_profile_ids=found.get("some_lacking", []),
    )


def _explained_event(event: Mapping[str, str], value: Any) -> pb.ExplainedEvent:
    return pb.ExplainedEvent(
        message_id=event["message_id"],
        timestamp_us=parse_time_us(event["timestamp"]),
        value=_value_json(value),
    )


def _value_json(value: Any) -> bytes:
    return b"" if value is None else json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _named(scope: str, name: str, field: str = "name") -> tuple[str, str]:
    """Workspace and audience of a name, once the caller is known to be allowed there."""
    auth.authorize_name(scope, name, field)
    workspace_id, audience_id = names.parse(names.AUDIENCE, name, field)
    return workspace_id, audience_id


def _time(moment_us: int) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(moment_us)
    return time
