"""The S3 destination: a file per batch and partition, put into a bucket by plain HTTP.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace_destination_s3 import answers, files
from headrace_destination_s3.settings import S3Settings
from headrace_sdk import (
    AwsSignature,
    BatchPolicy,
    Built,
    Capability,
    Check,
    Destination,
    EventBatch,
    EventItem,
    Field,
    FieldType,
    Idempotency,
    Manifest,
    Outcomes,
    Request,
    Response,
)

FIELDS = (
    Field(name="row", title="Row", type=FieldType.OBJECT,
          description="Of an NDJSON file, in place of the event and the person."),
)  # fmt: skip
_TYPES = {"ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}

MANIFEST = Manifest(
    name="s3",
    title="S3-compatible storage",
    description="Writes events to files in a bucket.",
    factory="headrace_destination_s3.destination:S3",
    settings=S3Settings,
    capabilities=frozenset({Capability.FORWARDING, Capability.EVENT_SYNC, Capability.CHECK}),
    fields=FIELDS,
    batch=BatchPolicy(max_items=1000, max_bytes=32_000_000, max_wait_s=10.0),
    concurrency=4,
    timeout_s=60.0,
    idempotency=Idempotency.KEY,
    auth=AwsSignature(
        access_key="access_key_id",
        secret_key="secret_access_key",  # noqa: S106 - the name of a setting
        region="region",
        service="s3",
    ),
    not_deleted="All files: rows of the person have to be taken out of them by a job on the bucket.",
)


class S3(Destination[S3Settings]):
    """Writes files."""

    manifest = MANIFEST

    def send_events(self, batch: EventBatch) -> Iterable[Built]:
        """A request per partition, each a file."""
        folders: dict[str, list[int]] = {}
        for place, event in enumerate(batch.events):
            folders.setdefault(files.folder(self.settings, event), []).append(place)
        for folder, places in folders.items():
            yield self._file(folder, [batch.events[place] for place in places], tuple(places))

    def read(self, request: Request, response: Response) -> Outcomes:
        """What S3's answer means, see `answers`."""
        return answers.read(request, response)

    def check(self) -> Iterable[Check]:
        """Whether the bucket can be listed. Writing cannot be tried without writing."""
        url = f"{self.settings.address()}?list-type=2&max-keys=1"
        if not self.settings.endpoint and "/" not in self.settings.address().removeprefix("https://"):
            url = f"{self.settings.address()}/?list-type=2&max-keys=1"
        yield Check(
            title="The bucket is there and the key may list it", request=Request(method="GET", url=url, items=())
        )

    def read_check(self, check: Check, response: Response) -> str:
        """What S3 says of the bucket."""
        return answers.problem(response)

    def _file(self, folder: str, events: list[EventItem], items: tuple[int, ...]) -> Request:
        if self.settings.format == "parquet":
            body = files.parquet(self.settings, [files.row(event) for event in events])
        else:
            own = [event.fields.get("row") for event in events]
            rows = [one if isinstance(one, dict) else files.row(event) for one, event in zip(own, events, strict=True)]
            body = files.ndjson(self.settings, rows)
        return Request(
            method="PUT",
            url=f"{self.settings.address()}/{folder}{files.name(self.settings, events)}",
            headers={"Content-Type": _TYPES[self.settings.format]},
            body=body,
            items=items,
        )
