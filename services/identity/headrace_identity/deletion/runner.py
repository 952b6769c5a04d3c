"""Carries deletions out: one replica at a time has each, and another goes on where one was interrupted.

The steps of a deletion, each of which may be repeated:

    begin    find the person and write the tombstones, in one transaction: nothing new of them gets in from now on
    forms    find the other forms of their identifiers, and write tombstones of those
    tell     the other services remove the person, destinations first, while everything can still be found
    remove   identity removes the events, then the profiles, and tells everybody by the log
    again    the other services remove what came in between; whoever failed is asked again, for some days
    receipt  what became of each place is signed, and whom it was about is forgotten
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from headrace.domain.times import DAY_US, SECOND_US, now_us
from headrace.rpc.erasure import MOST_MESSAGES
from headrace.storage.mongo.client import Database, Session
from headrace.telemetry import logs, metrics
from headrace_identity import gates
from headrace_identity.deletion import person as people
from headrace_identity.deletion import receipt, telling
from headrace_identity.deletion.keys import KeyRing, Keys
from headrace_identity.deletion.person import Named, Person
from headrace_identity.deletion.receipt import FAILED, Place
from headrace_identity.deletion.records import RUNNING, WAITING, Deletion, Deletions, LeaseLost, Tally
from headrace_identity.deletion.removal import Remover
from headrace_identity.deletion.tombstones import DELETED, Tombstones
from headrace_identity.worker import AtStep, no_step
from headrace_identity.workspaces import Workspaces

_log = logs.get_logger(__name__)

PLACE_OF_PERSON = "deletion"
"""What is sealed in a deletion is sealed for this place and the workspace."""

_FIRST_PAUSE_US = SECOND_US
_LONGEST_PAUSE_US = 300 * SECOND_US

_done = metrics.counter("headrace_identity_deletions", "Deletions that were carried out.")
_failures = metrics.counter(
    "headrace_identity_deletion_failures", "Steps of deletions that failed and are tried again, by step."
)


class Cancelled(Exception):
    """The deletion was cancelled before it began."""


class Waits(Exception):
    """A step cannot be done now; the text says in a sentence, without personal data, what it waits for."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How a runner waits.

    Attributes:
        every_s: How often it looks for what is due, in seconds. Who has shown no sign of life for ten times as long has
            a deletion no more.
        give_up_us: How long after its begin a deletion ends although somebody could not be told, in microseconds.
    """

    every_s: float = 1.0
    give_up_us: int = 7 * DAY_US

    @property
    def lease_us(self) -> int:
        """How long a replica has a deletion without a sign of life."""
        return int(10 * self.every_s * SECOND_US)


class Runner:
    """Carries out what is due."""

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        tombstones: Tombstones,
        remover: Remover,
        services: telling.Services,
        patience: Patience,
        *,
        at_step: AtStep = no_step,
    ) -> None:
        """Work on a database.

        Args:
            db: Database.
            keys: Keys of workspaces.
            tombstones: Writes tombstones.
            remover: Removes what identity keeps.
            services: The other services.
            patience: How it waits.
            at_step: Called between any two steps; tests end it there.
        """
        self._db = db
        self._keys = keys
        self._tombstones = tombstones
        self._remover = remover
        self._services = services
        self._patience = patience
        self._at_step = at_step
        self._deletions = Deletions(db)
        self._workspaces = Workspaces(db)
        self._replica = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._steps: dict[str, Callable[[Deletion, Person], Awaitable[str]]] = {
            "forms": self._forms,
            "tell": self._tell,
            "remove": self._remove,
            "again": self._again,
            "receipt": self._receipt,
        }

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                while await self.work():
                    pass
            except Exception:
                _log.exception("deletions wait because a store failed")
            await asyncio.sleep(self._patience.every_s)

    async def work(self) -> bool:
        """Carry on one deletion that is due, as far as it goes now; False when none is."""
        deletion = await self._deletions.take(self._replica, self._patience.lease_us)
        if deletion is None:
            return False
        holding = asyncio.create_task(self._hold(deletion))
        try:
            await self._carry_on(deletion)
        except (LeaseLost, Cancelled):
            pass  # somebody else has it, or nobody needs it
        finally:
            holding.cancel()
            with suppress(asyncio.CancelledError):
                await holding
        return True

    async def _hold(self, deletion: Deletion) -> None:
        while True:
            await asyncio.sleep(3 * self._patience.every_s)
            try:
                await self._deletions.hold(deletion, self._replica, self._patience.lease_us)
            except LeaseLost:
                return
            except Exception:
                _log.exception("the lease of a deletion could not be renewed", deletion=deletion.id)

    async def _carry_on(self, deletion: Deletion) -> None:
        while True:
            step = deletion.step or "begin"
            try:
                if deletion.state == WAITING:
                    deletion.step = await self._begin(deletion)
                else:
                    person = Person.of_text(self._open(deletion))
                    deletion.step = await self._steps[step](deletion, person)
            except (LeaseLost, Cancelled):
                raise
            except Waits as error:
                deletion.waiting_for = str(error)
                await self._later(deletion)
                return
            except Exception:
                _failures.add(1, {"step": step})
                _log.exception("a step of a deletion failed and is tried again", deletion=deletion.id, step=step)
                if deletion.state != WAITING:
                    deletion.waiting_for = f"The step {step!r} failed and is tried again."
                await self._later(deletion)
                return
            await self._at_step(step)
            if not deletion.step:
                return
            deletion.tries = 0
            deletion.waiting_for = ""
            await self._deletions.save(deletion, self._replica)

    async def _later(self, deletion: Deletion) -> None:
        """Give it back, to be taken up after a pause that doubles."""
        pause_us = min(_FIRST_PAUSE_US << min(deletion.tries, 20), _LONGEST_PAUSE_US)
        deletion.tries += 1
        if deletion.state != WAITING:
            await self._deletions.save(deletion, self._replica)
        await self._deletions.release(deletion, self._replica, now_us() + pause_us)

    async def _begin(self, deletion: Deletion) -> str:
        workspace_id = deletion.workspace_id
        keys = await self._keys.of(workspace_id)
        named = Named.of_text(self._open(deletion))

        async def act(session: Session) -> None:
            person = await people.find(self._db, session, workspace_id, named)
            person.shared = await people.shared_by(self._db, session, workspace_id, person)
            await self._write_tombstones(session, deletion, keys, person)
            deletion.begun_us = now_us()
            deletion.parts = person.parts
            deletion.step = "forms"
            deletion.sealed = self._seal(workspace_id, person)
            if not await self._deletions.begin(session, deletion):
                raise Cancelled

        await gates.change(self._db, workspace_id, act)
        deletion.state = RUNNING
        _log.info("a deletion begins", workspace=workspace_id, deletion=deletion.id)
        return "forms"

    async def _write_tombstones(self, session: Session, deletion: Deletion, keys: Keys, person: Person) -> None:
        await self._tombstones.add(
            session,
            deletion.workspace_id,
            keys,
            person.identifiers,
            kind=DELETED,
            deletion_id=deletion.id,
            forms=person.forms,
            shared=person.shared,
        )

    async def _forms(self, deletion: Deletion, person: Person) -> str:
        workspace_id = deletion.workspace_id
        workspace = await self._workspaces.read(workspace_id)
        person.forms = await people.forms_of(self._db, workspace_id, person, workspace.rules)
        if person.forms:
            keys = await self._keys.of(workspace_id)

            async def act(session: Session) -> None:
                await self._write_tombstones(session, deletion, keys, person)

            await gates.change(self._db, workspace_id, act)
            deletion.sealed = self._seal(workspace_id, person)
        return "tell"

    async def _tell(self, deletion: Deletion, person: Person) -> str:
        """Tell everybody once. Who cannot be reached holds up the removal, for a while: later nothing is found."""
        silent: list[str] = []
        for service in telling.ORDER:
            if service in person.told:
                continue
            try:
                found = await self._tell_everything(service, deletion, person)
            except telling.CannotBeTold:
                silent.append(service)
                continue
            deletion.places = receipt.merged(deletion.places, found)
            person.told.append(service)
            deletion.sealed = self._seal(deletion.workspace_id, person)
            await self._deletions.save(deletion, self._replica)
            await self._at_step(f"told {service}")
        if silent and not self._gives_up(deletion):
            raise Waits(f"{' and '.join(silent)} cannot be reached.")
        person.told = []
        deletion.sealed = self._seal(deletion.workspace_id, person)
        return "remove"

    async def _tell_everything(self, service: str, deletion: Deletion, person: Person) -> list[Place]:
        workspace_id = deletion.workspace_id
        places: list[Place] = []
        first = True
        messages: list[tuple[str, str]] = []

        async def call() -> None:
            nonlocal places, first, messages
            whom = person if first else None
            found = await self._services.tell(
                service, workspace_id, deletion.id, person=whom, parts=person.parts, messages=messages
            )
            places = receipt.merged(places, found)
            first, messages = False, []

        try:
            async for page in people.messages_of(self._db, workspace_id, person.parts):
                if len(messages) + len(page) > MOST_MESSAGES:
                    await call()
                messages += page
            if first or messages:
                await call()
        except telling.DoesNotKnowHow:
            return [Place(service, FAILED, 0, "The service does not know how to remove people.")]
        return places

    async def _remove(self, deletion: Deletion, person: Person) -> str:
        tally = Tally(self._deletions, deletion, self._replica)
        try:
            await self._remover.events(deletion.workspace_id, person, tally)
            await self._at_step("removed events")
            await self._remover.people(deletion.workspace_id, person, tally)
            await self._at_step("removed people")
            await self._remover.rest(deletion.workspace_id, person, deletion.id, tally)
        finally:
            tally.back()
        return "again"

    async def _again(self, deletion: Deletion, person: Person) -> str:
        """Tell everybody again, until everybody has nothing more, or too much time has passed."""
        failed: list[str] = []
        for service in telling.ORDER:
            if service in person.told:
                continue
            try:
                found = await self._services.tell(
                    service, deletion.workspace_id, deletion.id, person=person, parts=person.parts
                )
            except telling.CannotBeTold:
                found = [Place(service, FAILED, 0, "The service could not be reached.")]
            except telling.DoesNotKnowHow:
                person.told.append(service)
                continue
            else:
                deletion.places = [p for p in deletion.places if p.name != service]  # it answers now
            deletion.places = receipt.merged(deletion.places, found)
            missing = [place.name for place in found if place.outcome == FAILED]
            failed += missing
            if not missing:
                person.told.append(service)
            deletion.sealed = self._seal(deletion.workspace_id, person)
            await self._deletions.save(deletion, self._replica)
        if failed and not self._gives_up(deletion):
            raise Waits(f"Not removed yet: {', '.join(sorted(set(failed)))}.")
        return "receipt"

    async def _receipt(self, deletion: Deletion, person: Person) -> str:
        keys = await self._keys.of(deletion.workspace_id)
        deletion.end_us = now_us()
        deletion.receipt = receipt.sign(
            keys,
            workspace_id=deletion.workspace_id,
            deletion_id=deletion.id,
            requested_us=deletion.created_us,
            begun_us=deletion.begun_us,
            done_us=deletion.end_us,
            places=deletion.places,
        )
        await self._deletions.finish(deletion, self._replica)
        _done.add(1)
        _log.info("a deletion is done", workspace=deletion.workspace_id, deletion=deletion.id)
        return ""

    def _gives_up(self, deletion: Deletion) -> bool:
        return now_us() - deletion.begun_us > self._patience.give_up_us

    def _open(self, deletion: Deletion) -> str:
        return self._keys.open(deletion.sealed, deletion.workspace_id, PLACE_OF_PERSON)

    def _seal(self, workspace_id: str, person: Person) -> str:
        return self._keys.seal(person.as_text(), workspace_id, PLACE_OF_PERSON)
