"""What the platform says after a chaos run, compared with what was acknowledged to the senders."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from headrace_identity.resolving.replay import replay
from headrace_identity.resolving.rules import DEFAULT_RULES

from tests.support.reference import members_by_reference

if TYPE_CHECKING:
    from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceAsyncStub
    from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceAsyncStub

from headrace.api.audience.v1 import audience_service_pb2 as audience_api
from headrace.api.audience.v1.audience_service_pb2_grpc import AudienceServiceStub
from headrace.api.identity.v1 import profile_service_pb2 as profile_api
from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from headrace.api.identity.v1.profile_service_pb2_grpc import ProfileServiceStub
from headrace.demo.report import Platform
from headrace.demo.sandbox import SandboxVendor
from headrace.domain.times import now_us
from headrace.rpc.channel import with_token
from tests.chaos.load import Load

AUDIENCES: dict[str, dict[str, Any]] = {
    document["id"]: document["definition"]
    for document in yaml.safe_load_all((Path(__file__).parent / "chaos.yaml").read_text())
    if document["kind"] == "Audience"
}


@dataclass
class Account:
    """The account: everything that is wrong, in sentences."""

    events: int = 0
    problems: list[str] = field(default_factory=list)

    def expect(self, what: str, wanted: Any, found: Any) -> None:
        """Note a problem unless both are equal."""
        if wanted != found:
            self.problems.append(f"{what}: expected {wanted}, found {found}")


async def read_account(ready: dict[str, Any], load: Load, sandbox: SandboxVendor) -> Account:
    """Ask all services, by their public methods."""
    channels = {name: with_token(ready["grpc"][name], ready["api_token"]) for name in ("identity", "audience", "sync")}
    try:
        platform = Platform(channels["identity"], channels["audience"], channels["sync"], ready["workspace"])
        profiles = {p.name.rsplit("/", 1)[1]: p for p in await platform.profiles()}
        events = await _events(ProfileServiceStub(channels["identity"]), ready["workspace"], list(profiles))
        account = Account(events=sum(map(len, events.values())))
        _check_log(account, events, load)
        _check_identity(account, events)
        members = {audience: await platform.members(audience) for audience in AUDIENCES}
        for audience, found in members.items():
            wanted = members_by_reference(AUDIENCES, audience, events, now_us())
            account.expect(f"members of {audience} beside the reference", 0, len(wanted ^ found))
        await _check_verification(account, AudienceServiceStub(channels["audience"]), ready["workspace"])
        purchases = {m for m in load.acknowledged if load.names[m] == "Purchased"}
        ledger = await platform.ledger("purchases")
        account.expect("events in the ledger", len(load.acknowledged), ledger.expected)
        account.expect("events delivered", len(purchases), ledger.delivered + ledger.warned)
        account.expect("events not accounted for", 0, ledger.unaccounted + ledger.waiting + ledger.failed)
        account.expect("purchases at the webhook", 0, len(purchases ^ set(sandbox.webhook_ids)))
        emails = {_email_hash(p) for id, p in profiles.items() if id in members["gold"]} - {None}
        listed = {dict(row).get("EMAIL") for row in sandbox.lists.get("1001", set())}
        account.expect("rows on the list beside the audience", 0, len(emails ^ listed))
        return account
    finally:
        await asyncio.gather(*(channel.close(None) for channel in channels.values()))


def _check_log(account: Account, events: dict[str, list[ResolvedEvent]], load: Load) -> None:
    counts = Counter(e.event.message_id for own in events.values() for e in own)
    account.expect("acknowledged events that are missing", 0, len(load.acknowledged - counts.keys()))
    account.expect("events that nobody sent", 0, len(counts.keys() - load.names.keys()))
    account.expect("events that are there more than once", 0, sum(1 for n in counts.values() if n > 1))


def _check_identity(account: Account, events: dict[str, list[ResolvedEvent]]) -> None:
    """Replaying the recorded order must give the same people."""
    found = {e.event.message_id: profile for profile, own in events.items() for e in own}
    ordered = sorted((e for own in events.values() for e in own), key=lambda e: e.decision.sequence)
    again = replay([e.event for e in ordered], DEFAULT_RULES, [e.decision.sequence for e in ordered])
    moved = [m for m, profile in found.items() if again.root_of(m) != profile]
    account.expect("events that a replay gives to another profile", 0, len(moved))


async def _check_verification(account: Account, audiences: AudienceServiceAsyncStub, workspace: str) -> None:
    for audience in AUDIENCES:
        name = f"workspaces/{workspace}/audiences/{audience}"
        answer = await audiences.VerifyAudience(audience_api.VerifyAudienceRequest(name=name), timeout=60)
        account.expect(f"mismatches of {audience} with the batch evaluator", 0, len(answer.mismatched_profile_ids))
        account.expect(f"size of {audience} by the batch evaluator", answer.live_size, answer.batch_size)


async def _events(stub: ProfileServiceAsyncStub, workspace: str, profiles: list[str]) -> dict[str, list[ResolvedEvent]]:
    limit = asyncio.Semaphore(16)

    async def of(profile: str) -> list[ResolvedEvent]:
        found: list[ResolvedEvent] = []
        token = ""
        async with limit:
            while True:
                request = profile_api.ListProfileEventsRequest(
                    parent=f"workspaces/{workspace}/profiles/{profile}", page_size=1000, page_token=token
                )
                page = await stub.ListProfileEvents(request)
                found += page.events
                token = page.next_page_token
                if not token:
                    return found

    return dict(zip(profiles, await asyncio.gather(*map(of, profiles)), strict=True))


def _email_hash(profile: Any) -> str | None:
    """The row that the list should hold for a member: the mapping takes the email trait."""
    for trait in profile.traits:
        if trait.name == "email":
            return hashlib.sha256(json.loads(trait.value).encode()).hexdigest()
    return None
