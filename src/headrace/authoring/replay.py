"""One turn of the author's loop: load the plugin, make the requests of its samples, send them, read the answers."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession, DummyCookieJar

from headrace.authoring.vendor import Answer, NoAnswer, fake_vendor, send, shown_body
from headrace.connector import wire
from headrace.domain.times import now_us
from headrace.plugins import PluginError, PluginErrorKind, PluginHost
from headrace.plugins.authentication import authorised, takes_tokens
from headrace.plugins.masking import Masker, secrets_of
from headrace.plugins.render import Rendering, render
from headrace_sdk import Delivered, Outcome, Outcomes, Pending, Rejected, Retry, Warned
from headrace_sdk.samples import Samples

FAKE, VENDOR = "fake", "vendor"
_FAKE_TOKEN = "sample-access-token"  # noqa: S105 - of no vendor
_LATE_OUTPUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Input:
    """What is replayed.

    Attributes:
        connector: Name of the connector; empty for the one that the plugin offers.
        settings: Settings, secrets in the clear; None makes them from the manifest.
        mapping: Field -> expression as JSON; None for the connector's defaults.
        events: Lines with events; None when there are none.
        members: Lines with members; None when there are none.
        seed: Of what is made when there are neither events nor members.
        count: How many items are made then.
        send_to: Where requests are sent: FAKE, VENDOR or the address of a server; empty sends nothing.
        answers: What the fake vendor says.
    """

    connector: str = ""
    settings: Mapping[str, Any] | None = None
    mapping: str | None = None
    events: Sequence[str] | None = None
    members: Sequence[str] | None = None
    seed: int = 0
    count: int = 3
    send_to: str = ""
    answers: Sequence[Answer] = ()


@dataclass(slots=True)
class Replay:
    """What one turn found.

    Attributes:
        connector: Name of the connector; empty when the plugin could not be loaded.
        problem: Why it did not come to an end; empty when it did.
        output: What the plugin printed, the lines of its exceptions among it, secrets masked.
        requests: With secrets masked; each with its `answer` when it was sent.
        skipped, warnings: As in a dry run.
        outcomes: What became of each item that was sent.
    """

    connector: str = ""
    problem: str = ""
    output: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    outcomes: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


async def replay(host: PluginHost, given: Input, printed: io.StringIO | None = None) -> Replay:
    """Load the plugin of a host that is not started yet, and make one turn. What it does wrong is in the result.

    Args:
        host: Of one plugin.
        given: What to replay.
        printed: Where the plugin prints to when it runs in this process.

    Raises:
        MappingError, InputError, ValueError: What is given cannot be used.
    """
    found = Replay()
    await host.start()
    for failure in host.failures():
        found.problem, found.output = f"not loaded: {failure.reason}", list(failure.output)
    if not found.problem:
        found.connector = _chosen(host, given.connector)
        plugin = host.connectors()[found.connector].plugin
        try:
            await _turn(host, host.connectors()[found.connector], given, found)
        except PluginError as error:
            found.problem = error.reason
            if error.kind is PluginErrorKind.DEFECT and printed is None:
                await _late(lambda: bool(host.output(plugin)))
        found.output = host.output(plugin)
    if printed is not None:
        secrets = [secret for info in host.connectors().values() for secret in _secrets(info, given)]
        found.output = Masker(secrets).mask(printed.getvalue()).splitlines()
    return found


def _secrets(info: wire.ConnectorInfo, given: Input) -> list[str]:
    return secrets_of(info.settings_schema, given.settings or {})


def _chosen(host: PluginHost, name: str) -> str:
    """The connector that is meant.

    Raises:
        ValueError: There is none of this name, or there are several and none is named.
    """
    names = sorted(host.connectors())
    if name in names:
        return name
    if not name and len(names) == 1:
        return names[0]
    raise ValueError(f"the plugin offers {', '.join(names)}: say which with --connector")


async def _turn(host: PluginHost, info: wire.ConnectorInfo, given: Input, found: Replay) -> None:
    samples = Samples(info, given.seed, schema=info.settings_schema)
    settings = samples.settings() if given.settings is None else given.settings
    events, members = given.events, given.members
    if events is None and members is None:
        events, members = _made(info, samples, given.count)
    async with _server(given) as base:
        for lines, kind in ((events, "events"), (members, "members")):
            if lines is None:
                continue
            rendering = await render(
                host,
                connector=info.name,
                settings=settings,
                now_us=now_us(),
                mapping=given.mapping,
                events=lines if kind == "events" else None,
                members=lines if kind == "members" else None,
                as_they_came=True,
            )
            found.skipped += rendering.skipped
            found.warnings += rendering.warnings
            if given.send_to:
                await _send_all(host, info, settings, rendering, base, found)
            found.requests += rendering.requests


def _made(info: wire.ConnectorInfo, samples: Samples, count: int) -> tuple[list[str] | None, list[str] | None]:
    """Lines of events and members that are made from the manifest, for what the connector takes."""
    events = members = None
    if info.capabilities & {"event_sync", "forwarding"}:
        made = samples.events(count)
        events = [
            json.dumps({**one.document(), "profile": one.profile.document()}) for one in made if one.profile is not None
        ]
    if "list_sync" in info.capabilities:
        members = [json.dumps({"id": one.profile_id, "fields": one.fields}) for one in samples.members(count)]
    return events, members


async def _send_all(
    host: PluginHost,
    info: wire.ConnectorInfo,
    settings: Mapping[str, Any],
    rendering: Rendering,
    base: str,
    found: Replay,
) -> None:
    """Send the requests one after another, and note answers and outcomes.

    Raises:
        ValueError: They need an access token, and would go to the vendor.
    """
    if takes_tokens(info.auth) and not base:
        raise ValueError("requests with OAuth tokens go to the vendor through the platform alone: send to a server")
    instance = await host.open(info.name, settings)
    try:
        async with ClientSession(cookie_jar=DummyCookieJar()) as session:
            for (request, names), shown in zip(rendering.built, rendering.requests, strict=True):
                signed = authorised(request, info.auth, settings, now_us=now_us(), token=_FAKE_TOKEN)
                try:
                    response = await send(session, signed, timeout_s=info.timeout_s, base=base)
                except NoAnswer as failure:
                    shown["answer"] = {"status": 0, "body": ""}
                    outcomes = Outcomes.every(request, Retry(reason=str(failure)))
                else:
                    masker = Masker([*instance.secrets, *signed.secrets])
                    shown["answer"] = {"status": response.status, "body": masker.mask(shown_body(response))}
                    outcomes = await instance.read(request, response)
                note = outcomes.unauthorized or outcomes.misconfigured
                for name, outcome in zip(names, outcomes.items, strict=True):
                    found.outcomes.append({"message_id": name, **_shown_outcome(outcome, note)})
    finally:
        await instance.close()


@asynccontextmanager
async def _server(given: Input) -> AsyncIterator[str]:
    """Where requests are sent; empty for the addresses that they name."""
    if given.send_to == FAKE:
        async with fake_vendor(given.answers) as base:
            yield base
    else:
        yield "" if given.send_to == VENDOR else given.send_to


def _shown_outcome(outcome: Outcome, note: str) -> dict[str, str]:
    """What became of an item: {"outcome", "reason"}."""
    match outcome:
        case Delivered():
            return {"outcome": "delivered", "reason": ""}
        case Warned():
            return {"outcome": "warning", "reason": outcome.reason}
        case Rejected():
            return {"outcome": "rejected", "reason": outcome.reason}
        case Pending():
            return {"outcome": "pending", "reason": f"the vendor works on it in the job {outcome.job}"}
        case Retry():
            return {"outcome": "paused" if note else "retry", "reason": note or outcome.reason}


async def _late(there: Callable[[], bool]) -> None:
    """Wait for what a plugin printed, which comes by another way than its answers."""
    try:
        async with asyncio.timeout(_LATE_OUTPUT_S):
            while not there():  # noqa: ASYNC110 - nothing signals that a line was read
                await asyncio.sleep(0.01)
    except TimeoutError:
        return  # it printed nothing
