"""Consents on the stored profile: of all parts, in any order of events and batches, written only when they change."""

from __future__ import annotations

import msgspec
import pytest
from headrace_identity.calls.profile_messages import profile_message
from headrace_identity.people.profiles import Profiles
from headrace_identity.resolving.rules import DEFAULT_RULES
from headrace_identity.store import PROFILES
from headrace_identity.worker import Incoming, Worker

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import ConsentStatus
from headrace.domain.ids import profile_id
from headrace.storage.mongo.client import Database
from tests.support.identity import WORKSPACE, assert_equals_replay, event, read_stored

GRANTED = ConsentStatus.CONSENT_STATUS_GRANTED
DENIED = ConsentStatus.CONSENT_STATUS_DENIED


def said(message_id: str, *identifiers: tuple[str, str], day: float = 0, **purposes: str) -> Event:
    """A trackConsent call."""
    one = event(message_id, *identifiers, name="trackConsent", day=day)
    one.properties = msgspec.json.encode(purposes)
    return one


HISTORY = [
    said("m1", ("anonymous_id", "dev1"), day=1, ad_storage="granted", newsletter="granted"),
    said("m2", ("user_id", "u1"), day=2, ad_storage="denied"),
    said("m3", ("user_id", "u1"), day=0, newsletter="denied"),
    event("m4", ("user_id", "u1"), ("anonymous_id", "dev1"), day=3),
]
EXPECTED = [("ad_storage", DENIED, "m2"), ("newsletter", GRANTED, "m1")]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
@pytest.mark.parametrize("size", [1, 4])
async def test_a_person_has_the_newest_statement_of_all_parts(db: Database, order: tuple[int, ...], size: int) -> None:
    worker = Worker(db)
    history = [HISTORY[place] for place in order]
    for part in (history[i : i + size] for i in range(0, 4, size)):
        await worker.process(WORKSPACE, [Incoming(e, "s1", i) for i, e in enumerate(part)])
    stored = await read_stored(db)
    root = stored.root_of("m4")
    assert assert_equals_replay(stored, DEFAULT_RULES).consents(root).keys() == {"ad_storage", "newsletter"}
    person = (await Profiles(db).get(WORKSPACE, [profile_id(WORKSPACE, history[0].message_id)])).popitem()[1]
    message = profile_message(WORKSPACE, person)
    assert [(c.purpose, c.status, c.message_id) for c in message.consents] == EXPECTED
    assert all(c.source_id == "web" and c.timestamp_us for c in message.consents)


async def test_only_what_changes_is_written(db: Database) -> None:
    worker = Worker(db)

    async def process(*events: Event) -> dict[str, object]:
        await worker.process(WORKSPACE, [Incoming(e, "s1", i) for i, e in enumerate(events)])
        document = await db[PROFILES].find_one({"w": WORKSPACE})
        assert document is not None
        return document

    assert "co" not in await process(event("m1", ("user_id", "u1")))
    new = await process(said("m2", ("user_id", "u1"), day=5, ad_storage="granted"))
    assert [row[:2] for row in new["co"]] == [["ad_storage", True]]  # type: ignore[attr-defined]  # a list of rows
    await db[PROFILES].update_one({"_id": new["_id"]}, {"$set": {"mark": 1}})
    old = await process(said("m3", ("user_id", "u1"), day=4, ad_storage="denied"))
    assert old["co"] == new["co"]
    assert old["mark"] == 1
