"""What callers ask for: deletions and suppressions, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain.ids import new_time_ordered_id
from headrace.domain.times import now_us
from headrace.rpc import errors, names
from headrace.storage.mongo.client import Database, Session
from headrace_identity import gates
from headrace_identity.deletion import person as people
from headrace_identity.deletion.keys import KeyRing, Keys
from headrace_identity.deletion.person import Named, Person
from headrace_identity.deletion.records import CANCELLED, WAITING, Deletion, Deletions
from headrace_identity.deletion.runner import PLACE_OF_PERSON
from headrace_identity.deletion.tombstones import SUPPRESSED, Tombstones
from headrace_identity.resolving.rules import Identifier, Rules
from headrace_identity.workspaces import Workspaces


class Requests:
    """Takes requests about people who are to be deleted or suppressed."""

    def __init__(self, db: Database, keys: KeyRing, tombstones: Tombstones, *, wait_us: int) -> None:
        """Work on a database.

        Args:
            db: Database.
            keys: Keys of workspaces.
            tombstones: Tombstones.
            wait_us: How long a deletion waits, in microseconds.
        """
        self._db = db
        self._keys = keys
        self._tombstones = tombstones
        self._wait_us = wait_us
        self._workspaces = Workspaces(db)
        self.deletions = Deletions(db)

    async def normalised(self, workspace_id: str, namespace: str, value: str) -> Identifier:
        """An identifier as the rules of the workspace write it.

        Raises:
            ApiError: INVALID_ARGUMENT, it identifies nobody.
        """
        workspace = await self._workspaces.read(workspace_id)
        checked = workspace.rules.check(namespace, value)
        if checked.rule:
            description = f"identifies nobody, by the rules of the workspace ({checked.rule})"
            raise errors.invalid_argument("identifier", description)
        return namespace, checked.value

    async def delete(self, workspace_id: str, named: Named, reason: str) -> Deletion:
        """Ask for a deletion; the one that waits or runs for this person already, if there is one.

        Raises:
            ApiError: NOT_FOUND, there is no such profile.
        """
        person = await self._find(workspace_id, named)
        if person.parts:
            known = await self.deletions.of_parts(workspace_id, person.parts)
            if known is not None:
                return known
        keys = await self._keys.of(workspace_id)
        now = now_us()
        deletion = Deletion(
            workspace_id,
            new_time_ordered_id(),
            WAITING,
            masked=people.masked(named.identifier or min(person.identifiers)) if person.identifiers else "",
            reason=reason,
            created_us=now,
            due_us=now + self._wait_us,
            sealed=self._keys.seal(named.as_text(), workspace_id, PLACE_OF_PERSON),
            parts=person.parts,
        )
        who = person.parts[0] if person.parts else keys.digest(person.identifiers[0]).hex()
        return await self.deletions.add(deletion, who)

    async def cancel(self, workspace_id: str, deletion_id: str) -> Deletion:
        """Cancel a deletion that has not begun; one that is cancelled stays so.

        Raises:
            ApiError: NOT_FOUND; WRONG_STATE, it has begun or is done.
        """
        cancelled = await self.deletions.cancel(workspace_id, deletion_id)
        if cancelled is not None:
            return cancelled
        known = await self.deletions.get(workspace_id, deletion_id)
        if known is None:
            raise errors.not_found(names.format(names.DELETION, workspace_id, deletion_id))
        if known.state != CANCELLED:
            raise errors.wrong_state(known.state, "The deletion has begun: it cannot be cancelled any more.")
        return known

    async def suppress(self, workspace_id: str, named: Named) -> int:
        """Refuse all further events of a person; returns how many identifiers that adds.

        Raises:
            ApiError: NOT_FOUND, there is no such profile; CONCURRENT_CHANGE.
        """
        await self._find(workspace_id, named)
        keys = await self._keys.of(workspace_id)

        async def act(session: Session) -> int:
            person = await people.find(self._db, session, workspace_id, named)
            person.shared = await people.shared_by(self._db, session, workspace_id, person)
            return await self._write(session, workspace_id, keys, person)

        added = await gates.change(self._db, workspace_id, act)
        # The other forms in which they came. Events that come meanwhile are refused by the normal forms.
        person = await people.find(self._db, None, workspace_id, named)
        person.shared = await people.shared_by(self._db, None, workspace_id, person)
        rules = (await self._workspaces.read(workspace_id)).rules
        person.forms = await people.forms_of(self._db, workspace_id, person, rules) if person.parts else []
        if person.forms:
            await gates.change(self._db, workspace_id, lambda session: self._write(session, workspace_id, keys, person))
        return added

    async def unsuppress(self, workspace_id: str, identifier: Identifier) -> int:
        """Take events of a person again; returns how many identifiers that concerns.

        Raises:
            ApiError: CONCURRENT_CHANGE; WRONG_STATE, the person is being deleted at this moment.
        """
        keys = await self._keys.of(workspace_id)

        async def act(session: Session) -> int:
            person = await people.find(self._db, session, workspace_id, Named(identifier))
            if person.parts:
                running = await self.deletions.of_parts(workspace_id, person.parts)
                if running is not None and running.state != WAITING:
                    raise errors.wrong_state("running", "The person is being deleted: wait until that is done.")
            return await self._tombstones.lift(session, workspace_id, keys, person.identifiers)

        return await gates.change(self._db, workspace_id, act)

    async def erased(self, workspace_id: str, identifiers: Sequence[Identifier]) -> list[bool]:
        """For each identifier, as it came: whether its person was deleted or suppressed."""
        workspace = await self._workspaces.read(workspace_id)
        marks = await self._tombstones.marks(workspace)
        if marks is None:
            return [False] * len(identifiers)
        return marks.refused(_forms(workspace.rules, i) for i in identifiers)

    async def state_of(
        self, workspace_id: str, parts: Sequence[str], identifiers: Sequence[Identifier]
    ) -> tuple[str, bool]:
        """What a view of a person shows: the deletion that waits or runs, by name, and whether they are suppressed."""
        deletion = await self.deletions.of_parts(workspace_id, parts)
        name = names.format(names.DELETION, workspace_id, deletion.id) if deletion is not None else ""
        return name, any(await self.erased(workspace_id, identifiers))

    async def _find(self, workspace_id: str, named: Named) -> Person:
        person = await people.find(self._db, None, workspace_id, named)
        if not person.parts and named.identifier is None:
            raise errors.not_found(names.format(names.PROFILE, workspace_id, named.profile_id))
        return person

    async def _write(self, session: Session, workspace_id: str, keys: Keys, person: Person) -> int:
        return await self._tombstones.add(
            session,
            workspace_id,
            keys,
            person.identifiers,
            kind=SUPPRESSED,
            forms=person.forms,
            shared=person.shared,
        )


def _forms(rules: Rules, identifier: Identifier) -> list[Identifier]:
    namespace, value = identifier
    trimmed = value.strip()
    normal = rules.check(namespace, trimmed).value
    return [(namespace, form) for form in dict.fromkeys((trimmed, normal))]
