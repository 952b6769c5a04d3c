"""Settings of the webhook destination."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class WebhookSettings(BaseModel):
    """Where the events go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(title="URL", description="Absolute http or https address that the events are sent to.")
