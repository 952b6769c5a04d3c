"""Settings of the console service, beside those that all services share."""

from __future__ import annotations

from pydantic import Field

from headrace.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the console service reads from HEADRACE_* variables."""

    console_http_port: int = Field(0, ge=0, le=65535, description="HTTP port of the console; 0 takes a free one.")
