"""`headrace profiles delete | deletions | suppress ...`: deleting and suppressing people, and their receipts."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import read_text
from headrace.cli.output import Output, plain_of
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import CommandFailed, UsageProblem

if TYPE_CHECKING:
    from headrace.api.common.v1.event_pb2 import Identifier

app = group("People: delete and suppress them.")
receipts = group("Receipts of deletions: what was removed where.")

Namespace = Annotated[str, Argument(help='Namespace, such as "email".')]
Value = Annotated[str, Argument(help="Value; normalised as events are.")]
MaybeNamespace = Annotated[str, Argument(help='Namespace, such as "email"; not with --profile.')]
MaybeValue = Annotated[str, Argument(help="Value; normalised as events are.")]
Profile = Annotated[str, Option("--profile", help="Profile id or resource name, in place of an identifier.")]
DeletionId = Annotated[str, Argument(help="Id or resource name of the deletion.")]
States = Annotated[str, Option("--state", help="Only those that are waiting, running, done or cancelled.")]

_COLUMNS = ("DELETION=name", "state", "WHO=masked_identifier", "create_time", "due_time", "end_time", "waiting_for")


@command(app, "delete")
async def delete(
    platform: Platform,
    out: Output,
    namespace: MaybeNamespace = "",
    value: MaybeValue = "",
    profile: Profile = "",
    reason: Annotated[str, Option("--reason", help="Why, for the record; without personal data.")] = "",
) -> None:
    """Ask for the deletion of a person; it waits, and can be cancelled until it begins."""
    from headrace.api.identity.v1.profile_service_pb2 import RequestDeletionRequest

    request = RequestDeletionRequest(
        parent=platform.parent,
        identifier=_identifier(namespace, value, profile),
        profile=platform.name("profiles", profile) if profile else "",
        reason=reason,
    )
    deletion = (await platform.profiles.RequestDeletion(request)).deletion
    out.done(f"{deletion.name}: begins at {plain_of(deletion.due_time)}, until then cancel-deletion stops it", deletion)


@command(app, "deletions")
async def deletions(
    platform: Platform, out: Output, state: States = "", limit: Limit = DEFAULT_LIMIT, everything: All = False
) -> None:
    """List deletions, newest first."""
    from headrace.api.identity.v1.profile_service_pb2 import DeletionState, ListDeletionsRequest

    try:
        number = DeletionState.Value(f"DELETION_STATE_{state.upper() or 'UNSPECIFIED'}")
    except ValueError:
        raise UsageProblem(f"--state {state}: write waiting, running, done or cancelled") from None
    stub, parent = platform.profiles, platform.parent
    found = await listed(
        lambda size, token: stub.ListDeletions(
            ListDeletionsRequest(parent=parent, page_size=size, page_token=token, state=number)
        ),
        "deletions",
        limit=limit,
        everything=everything,
    )
    out.rows([_row(d) for d in found], _COLUMNS)


@command(app, "refused")
async def refused(platform: Platform, out: Output) -> None:
    """Show how many events of deleted and suppressed people were refused, by day."""
    from headrace.api.identity.v1.profile_service_pb2 import ListDeletionsRequest

    answer = await platform.profiles.ListDeletions(ListDeletionsRequest(parent=platform.parent, page_size=1))
    out.rows(list(answer.refused), ("day", "EVENTS=count"))


@command(app, "cancel-deletion")
async def cancel(platform: Platform, out: Output, deletion: DeletionId) -> None:
    """Cancel a deletion that has not begun."""
    from headrace.api.identity.v1.profile_service_pb2 import CancelDeletionRequest

    request = CancelDeletionRequest(name=platform.name("deletions", deletion))
    cancelled = (await platform.profiles.CancelDeletion(request)).deletion
    out.done(f"{cancelled.name}: cancelled", cancelled)


@command(app, "suppress")
async def suppress(
    platform: Platform, out: Output, namespace: MaybeNamespace = "", value: MaybeValue = "", profile: Profile = ""
) -> None:
    """Refuse all further events of a person, without deleting anything."""
    from headrace.api.identity.v1.profile_service_pb2 import SuppressProfileRequest

    request = SuppressProfileRequest(
        parent=platform.parent,
        identifier=_identifier(namespace, value, profile),
        profile=platform.name("profiles", profile) if profile else "",
    )
    answer = await platform.profiles.SuppressProfile(request)
    out.done(f"identifiers that are refused from now on: {answer.suppressed_identifiers}", answer)


@command(app, "unsuppress")
async def unsuppress(platform: Platform, out: Output, namespace: Namespace, value: Value) -> None:
    """Take events of a suppressed or deleted person again."""
    from headrace.api.identity.v1.profile_service_pb2 import UnsuppressProfileRequest

    identifier = _identifier(namespace, value, "")
    answer = await platform.profiles.UnsuppressProfile(
        UnsuppressProfileRequest(parent=platform.parent, identifier=identifier)
    )
    out.done(f"identifiers that are taken again: {answer.unsuppressed_identifiers}", answer)


@command(receipts, "get")
async def get_receipt(platform: Platform, out: Output, deletion: DeletionId) -> None:
    """Write the receipt of a deletion that is done, as `receipt verify` reads it."""
    from headrace.api.identity.v1.profile_service_pb2 import GetDeletionRequest
    from headrace.cli.output import write_json

    found = (
        await platform.profiles.GetDeletion(GetDeletionRequest(name=platform.name("deletions", deletion)))
    ).deletion
    if not found.HasField("receipt"):
        raise CommandFailed(f"the deletion is {_row(found)['state']}: it has a receipt once it is done")
    write_json(
        {
            "statement": found.receipt.statement.decode(),
            "signature": base64.b64encode(found.receipt.signature).decode(),
            "key_id": found.receipt.key_id,
        }
    )


@command(receipts, "verify")
async def verify_receipt(
    platform: Platform,
    out: Output,
    file: Annotated[Path, Argument(help="Receipt as `receipt get` writes it; - is standard input.")],
    public_key: Annotated[
        str, Option("--public-key", help="Ed25519 public key in base64; default: the workspace's, from the platform.")
    ] = "",
) -> None:
    """Check that a receipt was signed by the workspace and not changed since; exit status 1 if not."""
    from headrace_identity.deletion.receipt import InvalidReceipt, Signed, verify

    from headrace.api.identity.v1.profile_service_pb2 import GetReceiptKeyRequest

    try:
        form = json.loads(read_text(file))
        signature = base64.b64decode(form["signature"], validate=True)
        signed = Signed(form["statement"].encode(), signature, form["key_id"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageProblem(f"{file} is no receipt: make one by `headrace profiles receipt get`") from None
    if public_key:
        try:
            key = base64.b64decode(public_key, validate=True)
        except ValueError:
            raise UsageProblem("--public-key is not base64") from None
    else:
        key = (await platform.profiles.GetReceiptKey(GetReceiptKeyRequest(parent=platform.parent))).public_key
    try:
        statement = verify(signed, key)
    except InvalidReceipt as error:
        raise CommandFailed(f"the receipt is not genuine: {error}") from None
    if out.as_json:
        out.item(statement)
        return
    out.item({name: statement[name] for name in ("workspace", "deletion", "requested", "begun", "done", "not_told")})
    out.rows(statement["places"], ("place", "outcome", "count", "detail"))


def _row(deletion: Any) -> dict[str, Any]:
    plain: dict[str, Any] = plain_of(deletion)
    return plain


def _identifier(namespace: str, value: str, profile: str) -> Identifier | None:
    from headrace.api.common.v1.event_pb2 import Identifier

    if profile:
        if namespace or value:
            raise UsageProblem("name either an identifier or --profile")
        return None
    if not namespace or not value:
        raise UsageProblem("name a person by NAMESPACE VALUE or by --profile")
    return Identifier(namespace=namespace, value=value)


app.add_typer(receipts, name="receipt")
