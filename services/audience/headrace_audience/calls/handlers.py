"""What can be done with audiences: make, change, start, stop and remove them. Documents in, documents out; no gRPC.

Handlers only write what is wanted. The workers follow: they fill, keep exact, and empty what is being removed.

Changes of the definitions of one workspace happen one after the other (a document that each transaction touches), so
that two changes cannot close a circle of references that neither would see.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError, OperationFailure

from headrace.domain.definitions import DefinitionError
from headrace.domain.times import now_us
from headrace.rpc import names
from headrace.rpc.errors import (
    already_exists,
    etag_mismatch,
    in_use,
    invalid_argument,
    not_found,
    wrong_state,
)
from headrace.storage.mongo.client import Client, Database, Document, Session, transaction
from headrace_audience.answers.overlap import Region, overlap
from headrace_audience.calls.given import Given, check_known, definition_fault, looks, parse, read
from headrace_audience.calls.transitions import activated, defined, discarded, followed, naming, stopped, wanted
from headrace_audience.definitions import unreadable
from headrace_audience.definitions.computed_traits import ComputedTraits, chosen
from headrace_audience.definitions.stored import DEFINITION_FIELDS
from headrace_audience.definitions.unreadable import kind_of_members, readable, stand_in
from headrace_audience.filling.versions import switched
from headrace_audience.language.definition import All, Definition, check_references
from headrace_audience.language.places import places_of
from headrace_audience.store import (
    ACTIVE,
    ARCHIVED,
    AUDIENCES,
    COMPUTED,
    DELETED,
    DELETING,
    DRAFT,
    FILLING,
    PAUSED,
    SEPARATOR,
    VISIBLE,
    audience_key,
    changes_of,
    changes_of_all,
    member_count,
    members_after,
)

ATTEMPTS = 8
_FIELD = "audience.definition"

T = TypeVar("T")


class Audiences:
    """The audiences of all workspaces."""

    def __init__(
        self,
        client: Client,
        db: Database,
        computed_traits: ComputedTraits,
        partitions: int,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep them in a database.

        Args:
            client: Of the database.
            db: The database.
            computed_traits: What definitions can name.
            partitions: Number of partitions of profiles.
            on_change: Tells the worker of this process to look at once.
        """
        self._client = client
        self._db = db
        self._audiences = db[AUDIENCES]
        self._computed_traits = computed_traits
        self._partitions = partitions
        self._on_change = on_change

    async def create(
        self, workspace_id: str, audience_id: str, display_name: str, definition: str, request_id: str = ""
    ) -> Document:
        """Make an audience in state DRAFT.

        Raises:
            ApiError: INVALID_ARGUMENT with the place of the fault, ALREADY_EXISTS, or WRONG_STATE while one of the
                same id is being removed.
        """
        display_name = names.display_name("audience.display_name", display_name)
        given = await read(definition, _FIELD)
        with given.placing():
            return await self._create(workspace_id, audience_id, display_name, given.source, request_id)

    async def _create(
        self, workspace_id: str, audience_id: str, display_name: str, definition: str, request_id: str
    ) -> Document:
        parsed = parse(definition)
        computed = await self._computed_traits.named(workspace_id, definition, parsed, _FIELD)

        async def act(session: Session) -> Document:
            key = audience_key(workspace_id, audience_id)
            old = await self._audiences.find_one({"_id": key}, session=session)
            if old is not None and old["state"] != DELETED:
                if old["state"] == DELETING:
                    raise wrong_state(DELETING, "An audience of this id is being removed: try again in a moment.")
                if request_id and old.get("rid") == request_id:
                    return old
                raise already_exists(names.format(names.AUDIENCE, workspace_id, audience_id))
            await self._check_name(workspace_id, audience_id, display_name, session)
            await self._check_references(workspace_id, audience_id, definition, parsed, session)
            now = now_us()
            document: Document = {
                "_id": key,
                "w": workspace_id,
                "a": audience_id,
                "name": display_name,
                "def": definition,
                **naming(parsed, computed),
                "state": DRAFT,
                "gen": old["gen"] if old else 0,
                "base": old.get("base", 0) if old else 0,
                "rev": old["rev"] + 1 if old else 1,
                "cause": "fill",
                "at": 0,
                "done": [],
                "open": False,
                "created": now,
                "updated": now,
                "rid": request_id,
            }
            await self._audiences.replace_one({"_id": key}, document, upsert=True, session=session)
            return document

        return await self._one_after_the_other(workspace_id, act)

    async def get(self, workspace_id: str, audience_id: str) -> Document:
        """An audience. Raises ApiError NOT_FOUND."""
        return await self._visible(workspace_id, audience_id)

    async def page(
        self, workspace_id: str, after: str | None, limit: int, *, show_archived: bool = False
    ) -> list[Document]:
        """Audiences ordered by id, after one of them; archived ones when they are asked for."""
        states = [state for state in VISIBLE if show_archived or state != ARCHIVED]
        query: Document = {"w": workspace_id, "a": {"$gt": after or ""}, "state": {"$in": states}}
        return [d async for d in self._audiences.find(query).sort("a", ASCENDING).limit(limit)]

    async def update(
        self,
        workspace_id: str,
        audience_id: str,
        *,
        display_name: str | None,
        definition: str | None,
        etag: str,
        validate_only: bool = False,
        unseen: bool = False,
    ) -> Document:
        """Change what is not None; a new definition of an active audience is computed beside the present one.

        With `validate_only` nothing is stored; what would be is returned. With `unseen` nobody was told whom the new
        version of one that has members moves: it waits to be confirmed when it moves anybody.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND, or ABORTED when the etag is not the stored one.
        """
        if display_name is not None:
            display_name = names.display_name("audience.display_name", display_name)
        given = await read(definition, _FIELD) if definition is not None else None
        with given.placing() if given is not None else nullcontext():
            document = await self._update(
                workspace_id, audience_id, display_name, given, etag=etag, validate_only=validate_only, unseen=unseen
            )
        self._on_change()
        return document

    async def _update(
        self,
        workspace_id: str,
        audience_id: str,
        display_name: str | None,
        given: Given | None,
        *,
        etag: str,
        validate_only: bool,
        unseen: bool,
    ) -> Document:
        definition = given.source if given is not None else None
        parsed = parse(definition) if definition is not None else None
        computed: Mapping[str, str] = {}
        if definition is not None and parsed is not None:
            computed = await self._computed_traits.named(workspace_id, definition, parsed, _FIELD)

        async def act(session: Session) -> Document:
            old = await self._visible(workspace_id, audience_id, session)
            if etag and etag != etag_of(old):
                raise etag_mismatch()
            change: Document = {"updated": now_us(), "rev": old["rev"] + 1}
            if display_name is not None and display_name != old["name"]:
                await self._check_name(workspace_id, audience_id, display_name, session)
                change["name"] = display_name
            if definition is not None and parsed is not None:
                if parsed.of != kind_of_members(old):
                    raise invalid_argument("audience.definition.of", "cannot be changed; make another audience")
                await self._check_references(workspace_id, audience_id, definition, parsed, session)
                change |= defined(old, definition, parsed, naming(parsed, computed))
                if change.get("pending"):
                    change["pending"]["unseen"] = unseen
            if validate_only:
                return {**old, **change}
            return await self._set(old, change, session)

        return await self._one_after_the_other(workspace_id, act)

    async def activate(self, workspace_id: str, audience_id: str) -> Document:
        """Start computing; one that is computed already stays as it is.

        One that was live and is to be something else now keeps its members until the new version takes their place.

        Raises:
            ApiError: NOT_FOUND, or INVALID_ARGUMENT when it names an audience that is archived, or a computed trait
                that is gone.
        """
        asked = wanted(await self._visible(workspace_id, audience_id))
        known = await self._computed_traits.all(workspace_id) if asked.get("traits") else None

        async def act(session: Session) -> Document:
            old = await self._visible(workspace_id, audience_id, session)
            if old["state"] in COMPUTED:
                return old
            target = wanted(old)
            parsed = unreadable.parsed(target)
            await self._check_archived(workspace_id, target["def"], parsed, session)
            # Without `known` it names none, or was changed a moment ago with what holds now.
            computed = target.get("computed", {}) if known is None else chosen(known, target["def"], parsed, _FIELD)
            change = activated(old, naming(parsed, computed))
            return await self._set(old, change | {"rev": old["rev"] + 1, "activated": change["at"]}, session)

        document = await self._one_after_the_other(workspace_id, act)
        self._on_change()
        return document

    async def follow(self, document: Document, known: Mapping[str, str]) -> bool:
        """Follow the computed traits that an audience, or its pending version, names.

        Args:
            document: The audience, as it was read; when it was changed since, nothing is done.
            known: The computed traits that there are, as JSON by id.

        Returns:
            Whether this call changed it.

        Raises:
            DefinitionError: A stored definition cannot be read.
        """
        change = followed(document, known)
        if change is None:
            return False
        seen = {key: document[key] for key in ("_id", "w", "gen", "rev", "state")}
        change |= {"updated": now_us(), "rev": document["rev"] + 1}
        answer = await self._audiences.update_one(seen, {"$set": change})
        self._on_change()
        return bool(answer.modified_count)

    async def pause(self, workspace_id: str, audience_id: str) -> Document:
        """Stop computing; members stay. Raises ApiError NOT_FOUND, or WRONG_STATE for a draft or an archived one."""

        async def act(session: Session) -> Document:
            old = await self._visible(workspace_id, audience_id, session)
            if old["state"] == DRAFT:
                raise wrong_state(DRAFT, "A draft is not computed: there is nothing to pause.")
            if old["state"] == ARCHIVED:
                raise wrong_state(ARCHIVED, "An archived audience is not computed: there is nothing to pause.")
            if old["state"] == PAUSED:
                return old
            return await self._set(old, stopped(old, PAUSED), session)

        document = await self._one_after_the_other(workspace_id, act)
        self._on_change()
        return document

    async def archive(self, workspace_id: str, audience_id: str) -> Document:
        """Put an audience away; its members leave. One that is archived already stays as it is.

        Raises:
            ApiError: NOT_FOUND, or IN_USE with the audiences that name it and are not archived themselves.
        """

        async def act(session: Session) -> Document:
            old = await self._visible(workspace_id, audience_id, session)
            if old["state"] == ARCHIVED:
                return old
            await self._check_unused(workspace_id, audience_id, [s for s in VISIBLE if s != ARCHIVED], session)
            change = stopped(old, ARCHIVED) | {"cause": "archived", "open": True, "refreshed": 0}
            if old["gen"] == 0:
                change |= {"gen": 0, "open": False}
            return await self._set(old, change, session)

        document = await self._one_after_the_other(workspace_id, act)
        self._on_change()
        return document

    async def confirm(self, workspace_id: str, audience_id: str, etag: str) -> Document:
        """Let the pending version of a definition take its place.

        Raises:
            ApiError: NOT_FOUND, ABORTED when the etag is not the stored one, or WRONG_STATE when there is no pending
                version, or one that is still being computed.
        """

        async def act(session: Session) -> Document:
            old = await self._with_version(workspace_id, audience_id, etag, session)
            if old["state"] == PAUSED:
                raise wrong_state(PAUSED, "The new version of a paused audience is computed when it is activated.")
            unreadable.parsed(old["pending"])
            if not old["pending"]["ready"]:
                raise wrong_state(old["state"], "The new version is still being computed: try again in a moment.")
            return await self._set(old, switched(old), session)

        document = await self._one_after_the_other(workspace_id, act)
        self._on_change()
        return document

    async def discard(self, workspace_id: str, audience_id: str, etag: str) -> Document:
        """Forget the pending version of a definition.

        Raises:
            ApiError: NOT_FOUND, ABORTED when the etag is not the stored one, or WRONG_STATE when there is none.
        """

        async def act(session: Session) -> Document:
            old = await self._with_version(workspace_id, audience_id, etag, session)
            return await self._set(old, discarded(old) | {"rev": old["rev"] + 1, "updated": now_us()}, session)

        document = await self._one_after_the_other(workspace_id, act)
        self._on_change()
        return document

    async def refresh(self, workspace_id: str, audience_id: str) -> Document:
        """Compute an audience that is refreshed as of now; one that is being computed is left alone.

        Raises:
            ApiError: NOT_FOUND, or WRONG_STATE for one that is not computed, or neither refreshed at intervals nor of
                groups.
        """

        async def act(session: Session) -> Document:
            old = await self._visible(workspace_id, audience_id, session)
            parsed = unreadable.parsed(old)
            if parsed.kind == "static":
                advice = "archive and activate it, and all members leave before it is computed anew"
                raise wrong_state(old["state"], f"A static audience is computed once: {advice}.")
            if old["state"] not in COMPUTED:
                raise wrong_state(old["state"], "Only an active audience can be refreshed: activate it.")
            if not parsed.is_batch:
                raise wrong_state(old["state"], "A continuous audience is right at every moment: nothing to refresh.")
            if old["state"] == FILLING or old["open"]:
                return old
            now = now_us()
            change = {"gen": old["gen"] + 1, "cause": "refresh", "at": now, "done": [], "open": True, "updated": now}
            return await self._set(old, change, session)

        document = await self._one_after_the_other(workspace_id, act)
        self._on_change()
        return document

    async def delete(self, workspace_id: str, audience_id: str) -> None:
        """Remove an audience; its members leave.

        Raises:
            ApiError: NOT_FOUND, or IN_USE with the audiences that name it.
        """

        async def act(session: Session) -> None:
            old = await self._visible(workspace_id, audience_id, session)
            await self._check_unused(workspace_id, audience_id, VISIBLE, session)
            if old["gen"] == 0:
                await self._audiences.delete_one({"_id": old["_id"], "w": workspace_id}, session=session)
                return
            await self._set(old, stopped(old, DELETING) | {"cause": "definition", "open": True}, session)

        await self._one_after_the_other(workspace_id, act)
        self._on_change()

    async def size(self, document: Mapping[str, Any]) -> int:
        """Number of members now."""
        if document["gen"] == 0:
            return 0
        return await member_count(self._db, document["w"], document["a"])

    async def members(self, workspace_id: str, audience_id: str, after: str | None, limit: int) -> list[Document]:
        """Members ordered by profile id, after one of them. Raises ApiError NOT_FOUND."""
        await self._visible(workspace_id, audience_id)
        fields = ("p", "since", "version")
        return await members_after(self._db, workspace_id, audience_id, after or "", limit, self._partitions, fields)

    async def changes(
        self,
        workspace_id: str,
        audience_id: str | None,
        *,
        message_id: str,
        profile_id: str,
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[Document]:
        """Changes, newest first.

        Args:
            workspace_id: The workspace.
            audience_id: Only of this audience; None for all.
            message_id: Only those that this event caused; empty for all.
            profile_id: Only of this profile; empty for all.
            before: Only those after this place in the list: (time, id) of the last one of the previous page.
            limit: At most this many.

        Raises:
            ApiError: NOT_FOUND, when the audience does not exist.
        """
        query: Document = {"w": workspace_id}
        if audience_id is not None:
            await self._visible(workspace_id, audience_id)
            query["a"] = audience_id
        if message_id:
            query["m"] = message_id
        if profile_id:
            query["p"] = profile_id
        if len(query) == 1:
            return await changes_of_all(self._db, workspace_id, before, limit)
        return await changes_of(self._db, query, before, limit)

    async def overlap(self, workspace_id: str, audience_ids: Sequence[str]) -> list[Region]:
        """How audiences overlap, as they are stored."""
        return await overlap(self._db, workspace_id, audience_ids, self._partitions)

    async def definitions(self, workspace_id: str) -> dict[str, Definition]:
        """The definitions of all audiences of a workspace, by id."""
        return await self._definitions(workspace_id, None)

    async def _visible(self, workspace_id: str, audience_id: str, session: Session | None = None) -> Document:
        query: Document = {"_id": audience_key(workspace_id, audience_id), "w": workspace_id}
        document = await self._audiences.find_one(query, session=session)
        if document is None or document["state"] not in VISIBLE:
            raise not_found(names.format(names.AUDIENCE, workspace_id, audience_id))
        return document

    async def _set(self, old: Document, change: Document, session: Session) -> Document:
        await self._audiences.update_one({"_id": old["_id"], "w": old["w"]}, {"$set": change}, session=session)
        return {**old, **change}

    async def _with_version(self, workspace_id: str, audience_id: str, etag: str, session: Session) -> Document:
        """An audience that has a pending version."""
        document = await self._visible(workspace_id, audience_id, session)
        if etag and etag != etag_of(document):
            raise etag_mismatch()
        if not document.get("pending"):
            raise wrong_state(document["state"], "There is no new version of its definition.")
        return document

    async def _check_unused(
        self, workspace_id: str, audience_id: str, states: Collection[str], session: Session
    ) -> None:
        """Refuse to take away what audiences in one of these states name."""
        known = await self._definitions(workspace_id, session, states)
        users = [a for a, definition in known.items() if a != audience_id and audience_id in definition.references]
        if users:
            name = names.format(names.AUDIENCE, workspace_id, audience_id)
            raise in_use(name, [names.format(names.AUDIENCE, workspace_id, user) for user in users])

    async def _check_archived(self, workspace_id: str, source: str, parsed: Definition, session: Session) -> None:
        """Refuse a definition that names an archived audience: nobody is in it."""
        if not parsed.references:
            return
        archived = await self._definitions(workspace_id, session, [ARCHIVED])
        for path, audience_id in places_of(json.loads(source), "audience"):
            if audience_id in archived:
                raise invalid_argument(
                    f"audience.definition.{path}", f"the audience {audience_id!r} is archived: activate it first"
                )

    async def _definitions(
        self, workspace_id: str, session: Session | None, states: Collection[str] = VISIBLE
    ) -> dict[str, Definition]:
        query: Document = {"w": workspace_id, "a": {"$exists": True}, "state": {"$in": list(states)}}
        found: dict[str, Definition] = {}
        async for document in self._audiences.find(query, {"a": 1, "pending": 1, **DEFINITION_FIELDS}, session=session):
            definition = found[document["a"]] = readable(document) or stand_in(document)
            if version := document.get("pending"):
                # What the pending version names is needed too, and may close no circle.
                both = All((definition.where, (readable(version) or stand_in(version)).where))
                found[document["a"]] = replace(definition, where=both)
        return found

    async def _check_name(self, workspace_id: str, audience_id: str, display_name: str, session: Session) -> None:
        """Refuse the name of another audience; people know audiences by their names.

        Changes of one workspace happen one after the other, so nobody takes the name meanwhile.
        """
        query: Document = {
            "w": workspace_id,
            "a": {"$exists": True, "$ne": audience_id},
            "state": {"$in": list(VISIBLE)},
        }
        wanted = looks(display_name)
        async for other in self._audiences.find(query, {"a": 1, "name": 1}, session=session):
            if looks(other["name"]) == wanted:
                name = names.format(names.AUDIENCE, workspace_id, other["a"])
                raise invalid_argument("audience.display_name", f"is the name of {name} already")

    async def _check_references(
        self, workspace_id: str, audience_id: str, source: str, parsed: Definition, session: Session
    ) -> None:
        if not parsed.references:
            return
        others = await self._definitions(workspace_id, session)
        others[audience_id] = parsed
        check_known(source, others, parsed)
        await self._check_archived(workspace_id, source, parsed, session)
        try:
            check_references(others, audience_id)
        except DefinitionError as error:
            raise definition_fault(error) from None

    async def _one_after_the_other(self, workspace_id: str, act: Callable[[Session], Awaitable[T]]) -> T:
        """Run a change in a transaction that conflicts with every other change of the workspace."""
        for attempt in range(ATTEMPTS):
            try:
                async with transaction(self._client) as session:
                    await self._audiences.update_one(
                        {"_id": f"{workspace_id}{SEPARATOR}"}, {"$inc": {"changes": 1}}, upsert=True, session=session
                    )
                    return await act(session)
            except DuplicateKeyError:
                if attempt == ATTEMPTS - 1:
                    raise
            except OperationFailure as error:
                if not error.has_error_label("TransientTransactionError") or attempt == ATTEMPTS - 1:
                    raise
            await asyncio.sleep(0.01 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def etag_of(document: Mapping[str, Any]) -> str:
    """The etag of a stored audience."""
    return f"{document['rev']:x}"


def is_computed(document: Mapping[str, Any]) -> bool:
    """Whether the members of an audience are complete and kept exact."""
    return bool(document["state"] == ACTIVE)
