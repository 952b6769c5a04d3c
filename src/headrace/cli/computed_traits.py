"""`headrace computed-traits ...`: values that follow from people's events."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from headrace.cli.command import DEFAULT_LIMIT, All, Limit, command, group
from headrace.cli.files import json_argument, new_request_id
from headrace.cli.output import Output, plain_of, time_of
from headrace.cli.platform import Platform, listed
from headrace.cli.problems import FAILED, UsageProblem

app = group("Values that follow from people's events.")

Id = Annotated[str, Argument(help="Computed trait id or resource name.")]
_COLLECTION = "computedTraits"


@command(app, "list")
async def list_(platform: Platform, out: Output, limit: Limit = DEFAULT_LIMIT, everything: All = False) -> None:
    """List the computed traits."""
    from headrace.api.identity.v1.computed_trait_service_pb2 import ListComputedTraitsRequest

    stub, parent = platform.computed_traits, platform.parent
    out.rows(
        await listed(
            lambda size, token: stub.ListComputedTraits(
                ListComputedTraitsRequest(parent=parent, page_size=size, page_token=token)
            ),
            "computed_traits",
            limit=limit,
            everything=everything,
        ),
        ("name", "display_name", "state", "definition", "update_time"),
    )


@command(app, "get")
async def get(platform: Platform, out: Output, id: Id) -> None:
    """Show a computed trait, and how far it is filled."""
    from headrace.api.identity.v1.computed_trait_service_pb2 import GetComputedTraitRequest

    request = GetComputedTraitRequest(name=platform.name(_COLLECTION, id))
    out.item((await platform.computed_traits.GetComputedTrait(request)).computed_trait)


@command(app, "create")
async def create(
    platform: Platform,
    out: Output,
    id: Annotated[str, Argument(help="1 to 63 lower-case letters, digits and dashes, no dash first.")],
    definition: Annotated[str, Option("--definition", help="The definition as JSON, or @FILE.")],
    display_name: Annotated[str, Option("--display-name", help="Name for people; default: the id.")] = "",
) -> None:
    """Define a computed trait; it is filled from all stored events, then kept with every event."""
    from headrace.api.identity.v1.computed_trait_service_pb2 import ComputedTrait, CreateComputedTraitRequest

    text = json_argument("--definition", definition).encode()
    request = CreateComputedTraitRequest(
        parent=platform.parent,
        computed_trait_id=id,
        computed_trait=ComputedTrait(display_name=display_name, definition=text),
        request_id=new_request_id(),
    )
    out.item((await platform.computed_traits.CreateComputedTrait(request)).computed_trait)


@command(app, "update")
async def update(
    platform: Platform,
    out: Output,
    id: Id,
    display_name: Annotated[str | None, Option("--display-name", help="Name for people.")] = None,
    definition: Annotated[
        str | None, Option("--definition", help="The definition as JSON, or @FILE; another one is filled anew.")
    ] = None,
) -> None:
    """Change a computed trait; what is not given stays."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from headrace.api.identity.v1.computed_trait_service_pb2 import ComputedTrait, UpdateComputedTraitRequest

    trait = ComputedTrait(name=platform.name(_COLLECTION, id))
    paths = []
    if display_name is not None:
        trait.display_name = display_name
        paths.append("display_name")
    if definition is not None:
        trait.definition = json_argument("--definition", definition).encode()
        paths.append("definition")
    if not paths:
        raise UsageProblem("nothing to change was given")
    request = UpdateComputedTraitRequest(
        computed_trait=trait, update_mask=FieldMask(paths=paths), request_id=new_request_id()
    )
    out.item((await platform.computed_traits.UpdateComputedTrait(request)).computed_trait)


@command(app, "delete")
async def delete(platform: Platform, out: Output, id: Id) -> None:
    """Delete a computed trait with its values."""
    from headrace.api.identity.v1.computed_trait_service_pb2 import DeleteComputedTraitRequest

    name = platform.name(_COLLECTION, id)
    request = DeleteComputedTraitRequest(name=name, request_id=new_request_id())
    out.done(f"deleted {name}", await platform.computed_traits.DeleteComputedTrait(request))


@command(app, "verify")
async def verify(
    platform: Platform,
    out: Output,
    id: Id,
    profile: Annotated[str, Option("--profile", help="Profile id or resource name.")],
) -> int:
    """Compute the value of one profile from its events, beside the kept one; exit status 1 when they differ."""
    from headrace.api.identity.v1.computed_trait_service_pb2 import VerifyComputedTraitRequest

    request = VerifyComputedTraitRequest(
        name=platform.name(_COLLECTION, id), profile=platform.name("profiles", profile)
    )
    answer = await platform.computed_traits.VerifyComputedTrait(request, timeout=300)
    if out.as_json:
        out.item(answer)
    else:
        plain = plain_of(answer)
        out.item({"kept": plain["kept"], "computed": plain["computed"], "at": time_of(answer.at_us)})
    return FAILED if answer.kept != answer.computed else 0
