"""`vendor.json`: what a connector's author says of the vendor, so that the fake one can answer like it.

    {
      "settings": {"url": "https://vendor.example/v1"},
      "answers": [
        {"name": "accepted", "status": 200, "body": {"ok": true}},
        {"name": "one refused", "status": 200, "body": {"errors": [{"index": 1}]}, "means": ["delivered", "rejected"]}
      ],
      "waivers": {"properties.urls": "The vendor takes the address in the path alone."}
    }

In a body, "$items" stands for the number of items of the request, and {"$each": value} for a list with the value once
for each of them; within a list, for as many entries. A waiver says in a sentence why a check cannot hold.

Of a connector that does not speak HTTP, answers are those that its `deliver` gives to its `read`, and there is more:

    "delivery": {"settings": {"url": "acme://$address"}, "works": {"url": "file://$folder/acme"}}

`settings` lead to "$address", where an end is silent, breaks off or talks nonsense; `works`, if there can be any,
deliver without a server into "$folder", which is empty.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from headrace.conformance.checks import CheckFailed
from headrace_sdk import Request

FILE_NAME = "vendor.json"
ACCEPTED = "accepted"

Meaning = Literal["delivered", "warned", "rejected", "retry", "pending", "unauthorized", "misconfigured", "throttled"]


class VendorAnswer(BaseModel):
    """An answer of the vendor.

    Attributes:
        name: What it is called; "accepted" is that to a request in which all is well.
        calls: Calls whose requests are so answered: "add_members", "remove_members", "send_events", "delete"; empty
            for all.
        url: Text in the address of the requests that are so answered; empty for any.
        status: HTTP status.
        headers: Headers.
        body: A JSON value, or a text that is sent as it is; null for no body.
        means: What it means: one word for all items, or one for each of the first items. A connector that is asked
            with more items than there are words repeats the last one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    calls: tuple[str, ...] = ()
    url: str = ""
    status: int = Field(200, ge=200, le=599)
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None
    means: Meaning | tuple[Meaning, ...] = "delivered"

    def answers(self, call: str, request: Request) -> bool:
        """True when it can be the answer to a request."""
        return (not self.calls or call in self.calls) and self.url in request.url

    @property
    def is_json(self) -> bool:
        """True when the vendor speaks JSON with members that say something."""
        return isinstance(self.body, dict | list) and bool(self.body)

    def content(self, items: int) -> bytes:
        """The body for a request with this many items."""
        if self.body is None:
            return b""
        return self.body.encode() if isinstance(self.body, str) else json.dumps(_filled(self.body, items)).encode()


class Delivery(BaseModel):
    """How a connector that does not speak HTTP is led to ends on this machine.

    Attributes:
        settings: Settings, on top of the others, with which it goes to "$address": a host with a port.
        works: Settings with which it delivers without a server, such as a database file in "$folder"; empty when there
            are none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any] = Field(default_factory=dict)
    works: dict[str, Any] = Field(default_factory=dict)


class VendorFile(BaseModel):
    """The file.

    Attributes:
        settings: Settings for the checks, on top of those made from the manifest. Secrets in it are made up.
        answers: How the vendor answers.
        delivery: How a connector that does not speak HTTP is led to ends on this machine.
        waivers: Ids of checks that cannot hold with this vendor, with a sentence each that says why.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any] = Field(default_factory=dict)
    answers: tuple[VendorAnswer, ...] = ()
    delivery: Delivery = Delivery()
    waivers: dict[str, Annotated[str, StringConstraints(pattern=r"^\S.{18,}\.$")]] = Field(default_factory=dict)

    def accepted(self, call: str, request: Request) -> VendorAnswer:
        """The vendor's answer to a request in which all is well.

        Raises:
            CheckFailed: The file has none.
        """
        for answer in self.answers:
            if answer.name == ACCEPTED and answer.answers(call, request):
                return answer
        raise CheckFailed(f'{FILE_NAME} has no answer called "{ACCEPTED}" for {call}')


def read_vendor_file(folder: Path | None) -> VendorFile:
    """The file in a folder; an empty one when there is none.

    Raises:
        CheckFailed: It cannot be used.
    """
    path = folder / FILE_NAME if folder is not None else None
    if path is None or not path.exists():
        return VendorFile()
    try:
        return VendorFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CheckFailed(f"{FILE_NAME}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _filled(value: Any, items: int) -> Any:
    if value == "$items":
        return items
    if isinstance(value, dict):
        if set(value) == {"$each"}:
            return [_filled(value["$each"], items) for _ in range(items)]
        return {name: _filled(inner, items) for name, inner in value.items()}
    return [one for inner in value for one in _entries(inner, items)] if isinstance(value, list) else value


def _entries(value: Any, items: int) -> list[Any]:
    """What an entry of a list stands for: itself, or several in its place."""
    filled = _filled(value, items)
    return filled if isinstance(value, dict) and set(value) == {"$each"} else [filled]
