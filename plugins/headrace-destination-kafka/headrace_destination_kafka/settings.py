"""Settings of the Kafka destination."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

_SERVER = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class KafkaSettings(BaseModel):
    """Which brokers, and which topic."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    bootstrap_servers: list[str] = Field(
        min_length=1, max_length=20, title="Brokers", description="host:port of some of them; the others are found."
    )
    topic: str = Field(title="Topic", description="Where events go.")
    topics: dict[str, str] = Field(
        default_factory=dict,
        title="Topics by event",
        description='Event name (or "identify", "group" ...) to its own topic. Empty leaves the event out.',
    )
    key: Literal["person", "message_id", "none"] = Field(
        "person",
        title="Key",
        description="What records are keyed by. Records of the same key stay in order in one partition.",
    )
    tls: bool = Field(True, title="TLS", description="Encrypts the connection and checks the brokers' certificates.")
    username: str = Field("", max_length=500, title="User name", description="For SASL; empty for none.")
    password: SecretStr | None = Field(None, title="Password", description="For SASL.")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", title="SASL mechanism", description="How the password is proved."
    )
    compression: Literal["none", "gzip"] = Field("gzip", title="Compression", description="Of batches of records.")

    max_record_bytes: int = Field(
        1_000_000,
        ge=1_000,
        le=4_000_000,
        title="Largest record",
        description="In bytes; what is larger is rejected. The topic's max.message.bytes says what brokers take.",
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers(cls, servers: list[str]) -> list[str]:
        for server in servers:
            match = _SERVER.fullmatch(server)
            if match is None or not 0 < int(match[2]) < 65_536:
                raise ValueError("each must be host:port")
        return servers

    @field_validator("topic")
    @classmethod
    def _topic(cls, name: str) -> str:
        return _checked(name)

    @field_validator("topics")
    @classmethod
    def _topics(cls, names: dict[str, str]) -> dict[str, str]:
        for name in filter(None, names.values()):
            _checked(name)
        return names

    @model_validator(mode="after")
    def _whole_login(self) -> KafkaSettings:
        password = self.password.get_secret_value() if self.password is not None else ""
        if bool(self.username) != bool(password):
            raise ValueError("give both a user name and a password, or neither")
        if self.username and self.mechanism == "PLAIN" and not self.tls:
            raise ValueError("the mechanism PLAIN sends the password in the clear: it needs TLS")
        return self


def _checked(name: str) -> str:
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError("must be 1 to 249 letters, digits, '.', '_' and '-'")
    return name
