"""Samples of a destination: events with the requests that are expected for them, tried without sending anything.

`headrace destination test` is this module with files around it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.plugins.host import PluginHost
from headrace.plugins.offline import InputError
from headrace.plugins.render import Rendering, render

_MEMBERS = frozenset({"name", "event", "requests", "skipped"})
_REQUEST_MEMBERS = frozenset({"method", "url", "headers", "body"})


class SampleError(ValueError):
    """A file of samples that cannot be used."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An event, and what is expected of it.

    Attributes:
        name: For people.
        event: In Segment's form, as files of events have it.
        requests: What must be sent: of each request the members that are given; None when nothing is said of them.
        skipped: Text that the reason for leaving it out must hold, empty for any; None when nothing is said of that.
    """

    name: str
    event: Mapping[str, Any]
    requests: Sequence[Mapping[str, Any]] | None = None
    skipped: str | None = None


@dataclass(slots=True)
class Tried:
    """What came of a sample.

    Attributes:
        sample: The sample.
        rendering: What would be sent.
        differences: Where that is not what is expected, a sentence each; empty when the sample passed.
    """

    sample: Sample
    rendering: Rendering
    differences: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON: {"name", "passed", "differences", "requests", "skipped", "warnings"}."""
        head = {"name": self.sample.name, "passed": not self.differences, "differences": self.differences}
        return {**head, **self.rendering.document()}


def read_samples(text: str) -> list[Sample]:
    """The samples in a file: a JSON list of {"name", "event", "requests" or "skipped"}.

    "requests" is a list of requests with any of "method", "url", "headers" and "body" (a text, or JSON); "skipped" is
    part of a reason, or true for any. A sample without both passes when its event does not fail.

    Raises:
        SampleError: It is none; the text says what is wrong.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise SampleError("is no JSON") from None
    if not isinstance(found, list) or not found:
        raise SampleError("must be a list of samples")
    return [_sample(place, one) for place, one in enumerate(found, start=1)]


async def try_samples(
    host: PluginHost,
    samples: Sequence[Sample],
    *,
    connector: str,
    settings: Mapping[str, Any],
    now_us: int,
    mapping: str | Mapping[str, Any] | None = None,
) -> list[Tried]:
    """What would be sent for samples, and where it is not what they expect.

    Args:
        host: A started host.
        samples: The samples.
        connector: Name of the connector.
        settings: Settings of the destination, secrets in the clear.
        now_us: Time of events that have none.
        mapping: Field -> expression; None for the connector's defaults.

    Raises:
        InputError: The event of a sample is none; its line is the place of the sample.
        PluginError, MappingError, ValueError: As `render`.
    """
    tried = []
    for place, sample in enumerate(samples, start=1):
        try:
            rendering = await render(
                host, connector=connector, settings=settings, now_us=now_us, mapping=mapping,
                events=[json.dumps(sample.event)], as_they_came=True,
            )  # fmt: skip
        except InputError as error:
            raise InputError(place, f"({sample.name}) {error.reason}") from None
        tried.append(Tried(sample, rendering, _differences(sample, rendering)))
    return tried


def _sample(place: int, value: Any) -> Sample:
    where = f"sample {place}"
    if not isinstance(value, dict) or not isinstance(value.get("event"), dict):
        raise SampleError(f'{where} must be an object with an "event"')
    name = value.get("name", where)
    if not isinstance(name, str):
        raise SampleError(f"{where}: name must be a text")
    unknown = value.keys() - _MEMBERS
    if unknown:
        raise SampleError(f"{where}: unknown member {min(unknown)!r}; there are {', '.join(sorted(_MEMBERS))}")
    requests, skipped = value.get("requests"), value.get("skipped")
    if requests is not None and skipped is not None:
        raise SampleError(f"{where}: expects either requests or skipped")
    if requests is not None and not (isinstance(requests, list) and all(isinstance(one, dict) for one in requests)):
        raise SampleError(f"{where}: requests must be a list of objects")
    for one in requests or ():
        if one.keys() - _REQUEST_MEMBERS:
            wrong = min(one.keys() - _REQUEST_MEMBERS)
            raise SampleError(f"{where}: a request has no {wrong!r}; it has {', '.join(sorted(_REQUEST_MEMBERS))}")
        if not isinstance(one.get("headers", {}), dict):
            raise SampleError(f"{where}: headers must be an object")
    if skipped is not None and not (skipped is True or isinstance(skipped, str)):
        raise SampleError(f"{where}: skipped must be part of a reason, or true")
    return Sample(name, value["event"], requests, "" if skipped is True else skipped)


def _differences(sample: Sample, rendering: Rendering) -> list[str]:
    reasons = [skipped["reason"] for skipped in rendering.skipped]
    if sample.skipped is not None:
        if rendering.requests:
            return [f"sent {_requests(len(rendering.requests))} and should be left out"]
        return (
            [] if any(sample.skipped in reason for reason in reasons) else [f"left out because: {'; '.join(reasons)}"]
        )
    if rendering.failures or (reasons and sample.requests):
        return reasons
    if sample.requests is None:
        return []
    if len(sample.requests) != len(rendering.requests):
        return [f"sent {_requests(len(rendering.requests))}, expected {len(sample.requests)}"]
    return [
        difference
        for place, (expected, sent) in enumerate(zip(sample.requests, rendering.requests, strict=True), start=1)
        for difference in _request_differences(f"request {place}", expected, sent)
    ]


def _request_differences(which: str, expected: Mapping[str, Any], sent: Mapping[str, Any]) -> list[str]:
    found = [
        f"{which}: {member} is {sent[member]!r}, expected {expected[member]!r}"
        for member in ("method", "url")
        if member in expected and sent[member] != expected[member]
    ]
    headers = {name.lower(): value for name, value in sent["headers"].items()}
    for name, value in expected.get("headers", {}).items():
        if headers.get(name.lower()) != value:
            found.append(f"{which}: header {name} is {headers.get(name.lower())!r}, expected {value!r}")
    if "body" in expected:
        body = _body(sent["body"], expected["body"])
        if not _equal(body, expected["body"]):
            shown = json.dumps(body, ensure_ascii=False), json.dumps(expected["body"], ensure_ascii=False)
            found.append(f"{which}: body is {shown[0]}, expected {shown[1]}")
    return found


def _body(sent: Any, expected: Any) -> Any:
    """The body that was sent, read as JSON where JSON is expected."""
    if isinstance(expected, str) or not isinstance(sent, str):
        return sent
    try:
        return json.loads(sent)
    except (ValueError, RecursionError):
        return sent


def _equal(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same: 1 is 1.0; unlike in Python, true is not 1."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"
