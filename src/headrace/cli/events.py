"""`headrace events ...`: follow an event through all services."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from headrace.cli.command import command, group
from headrace.cli.output import Output
from headrace.cli.platform import Platform

app = group("Follow an event through all services.")


@app.callback()
def _events() -> None:
    """Follow an event through all services."""


@command(app, "journey")
async def journey(
    platform: Platform, out: Output, message_id: Annotated[str, Argument(help="The event's message id.")]
) -> None:
    """Show what became of an event: accepted, resolved, memberships, deliveries."""
    from headrace.api.identity.v1.profile_service_pb2 import GetEventJourneyRequest

    request = GetEventJourneyRequest(parent=platform.parent, message_id=message_id)
    answer = await platform.profiles.GetEventJourney(request)
    if out.as_json:
        out.item(answer)
    else:
        out.rows(list(answer.steps), ("time", "stage", "outcome", "resource", "detail"))
