"""Settings of the S3 destination."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

PLACES = ("event", "type", "source", "date", "hour")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_KEY = re.compile(r"[A-Za-z0-9!_.*'()/=-]*")
_PLACE = re.compile(r"\{([^{}]*)\}")


class S3Settings(BaseModel):
    """Which bucket, and how its files look."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    bucket: str = Field(title="Bucket", description="It has to exist.")
    region: str = Field("us-east-1", title="Region", description="Of the bucket.")
    access_key_id: str = Field(
        min_length=1, max_length=200, title="Access key id", description="Of a user who may do s3:PutObject."
    )
    secret_access_key: SecretStr = Field(title="Secret access key", description="That belongs to the id.")
    endpoint: str = Field(
        "",
        title="Endpoint",
        description="Of a service that is compatible with S3; empty for Amazon's. The bucket is put in the path.",
    )
    prefix: str = Field("headrace/", max_length=300, title="Prefix", description="Of all keys.")
    partition: str = Field(
        "date={date}/event={event}/",
        max_length=200,
        title="Partition",
        description="After the prefix: {event}, {type}, {source}, {date} and {hour} (UTC, of when the event happened).",
    )
    format: Literal["ndjson", "parquet"] = Field("ndjson", title="Format", description="Of the files.")
    compression: Literal["none", "gzip", "zstd"] = Field(
        "gzip", title="Compression", description="Of the files, or within them for Parquet."
    )

    @field_validator("bucket")
    @classmethod
    def _bucket(cls, name: str) -> str:
        if not _BUCKET.fullmatch(name) or ".." in name:
            raise ValueError("must be the name of a bucket: 3 to 63 lower-case letters, digits, dots and dashes")
        return name

    @field_validator("region")
    @classmethod
    def _region(cls, name: str) -> str:
        if not _REGION.fullmatch(name):
            raise ValueError("must be a region such as eu-central-1")
        return name

    @field_validator("secret_access_key")
    @classmethod
    def _secret(cls, secret: SecretStr) -> SecretStr:
        if not secret.get_secret_value():
            raise ValueError("must not be empty")
        return secret

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, url: str) -> str:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        if url and (not usable or "@" in url or parts.path.strip("/") or " " in url):
            raise ValueError("must be an http or https address without path and query")
        return url.rstrip("/")

    @field_validator("prefix", "partition")
    @classmethod
    def _key(cls, text: str) -> str:
        bare = _PLACE.sub("", text)
        if not _KEY.fullmatch(bare) or text.startswith("/") or "//" in text or ".." in text:
            raise ValueError("may hold letters, digits and ! _ . * ' ( ) / = -, and no / at the beginning")
        return text

    @model_validator(mode="after")
    def _known_places(self) -> S3Settings:
        if "{" in self.prefix:
            raise ValueError("prefix: takes no {}; use partition")
        for name in _PLACE.findall(self.partition):
            if name not in PLACES:
                raise ValueError(f"partition: {{{name}}} is none of {', '.join(PLACES)}")
        return self

    def address(self) -> str:
        """URL of the bucket, without a / at the end."""
        if self.endpoint:
            return f"{self.endpoint}/{self.bucket}"
        if "." in self.bucket:  # the certificate of the host with the bucket's name would not fit
            return f"https://s3.{self.region}.amazonaws.com/{self.bucket}"
        return f"https://{self.bucket}.s3.{self.region}.amazonaws.com"
