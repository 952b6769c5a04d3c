"""The thin end: produces the records of a request, and says what became of each."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from headrace_destination_kafka import answers
from headrace_destination_kafka.settings import KafkaSettings
from headrace_sdk import Request, Response, TransientError

_REQUEST_MS = 10_000


class Client:
    """A producer."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        """Take one that is started."""
        self._producer = producer

    @classmethod
    async def connect(cls, settings: KafkaSettings) -> Client:
        """Find the brokers.

        Raises:
            TransientError: None of them answers.
        """
        login: dict[str, Any] = {}
        if settings.username and settings.password is not None:
            login = {
                "sasl_mechanism": settings.mechanism,
                "sasl_plain_username": settings.username,
                "sasl_plain_password": settings.password.get_secret_value(),
            }
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap_servers,
            client_id="headrace",
            acks="all",
            enable_idempotence=True,  # a record that is sent again after a lost answer is there once, in its place
            compression_type=None if settings.compression == "none" else settings.compression,
            linger_ms=5,
            max_request_size=settings.max_record_bytes,
            request_timeout_ms=_REQUEST_MS,
            security_protocol=("SASL_" if login else "") + ("SSL" if settings.tls else "PLAINTEXT"),
            ssl_context=ssl.create_default_context() if settings.tls else None,
            **login,
        )
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            await producer.stop()
            raise TransientError(f"no broker can be reached ({type(error).__name__})") from None
        except BaseException:
            await producer.stop()
            raise
        return cls(producer)

    async def close(self) -> None:
        """Leave the brokers."""
        await self._producer.stop()

    async def carry_out(self, request: Request) -> Response:
        """Produce the records of a request, or look for its topic."""
        topic = request.url.rpartition("/")[2]
        try:
            await self._producer.partitions_for(topic)
        except (KafkaError, OSError) as error:
            return answers.response([type(error).__name__])
        if request.method == "DESCRIBE":
            return answers.response([""])
        sent = [await self._start(topic, json.loads(line)) for line in request.body.split(b"\n")]
        found = await asyncio.gather(*sent, return_exceptions=True)
        return answers.response([_name(one) for one in found])

    async def _start(self, topic: str, record: dict[str, Any]) -> asyncio.Future[Any]:
        """Hand a record to the producer; the future is done when the brokers have it."""
        key, value = record["key"], record["value"]
        try:
            future: asyncio.Future[Any] = await self._producer.send(
                topic,
                value=value.encode() if value is not None else None,
                key=key.encode() if key is not None else None,
                headers=[(name, text.encode()) for name, text in record["headers"].items()],
                timestamp_ms=record.get("timestamp"),
            )
        except KafkaError as error:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
        return future


def _name(found: Any) -> str:
    """The name of an error; empty for a record that the brokers have."""
    if isinstance(found, KafkaError | OSError):
        return type(found).__name__
    if isinstance(found, BaseException):
        raise found
    return ""
