"""Settings of the sync service, beside those that all services share."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from headrace.plugins import Options
from headrace.settings import ServiceSettings
from headrace_sync.alerts.message import key_of_secret
from headrace_sync.outlets.http import AddressRefused, check_url

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Settings(ServiceSettings):
    """What the sync service reads from HEADRACE_* variables."""

    allow_private_destinations: bool = Field(
        False, description="Let destinations be on loopback, private and link-local addresses: for development only."
    )
    plugins: str | None = Field(
        None, description="Comma-separated names of the plugins to load; all that are installed when not set."
    )
    plugin_folders: str = Field(
        "", description="Comma-separated folders of plugins in other languages, each with a headrace-plugin.toml."
    )
    plugins_in_process: bool = Field(
        False,
        description="Run Python plugins in the service's own process, to debug them: for development only, refused "
        "unless the service listens on loopback.",
    )
    delivery_queue: int = Field(
        5_000, ge=10, description="Deliveries per destination held in memory; the others wait in the store."
    )
    delivery_lease_seconds: float = Field(
        60.0,
        gt=0,
        description="After how long a delivery taken by a process that died is taken by another, in seconds.",
    )
    delivery_poll_seconds: float = Field(
        1.0, gt=0, description="How often waiting deliveries of a destination are looked for, in seconds."
    )
    list_debounce_seconds: float = Field(
        0.2, ge=0, description="How long a list pass waits for more changes after the first, in seconds."
    )
    list_pass_seconds: float = Field(
        5.0, gt=0, description="How often each list sync looks for members that differ, in seconds."
    )
    lease_seconds: float = Field(
        10.0, gt=0, description="After how long list passes and comparisons of a process that died are taken over."
    )
    reconcile_seconds: float = Field(
        600.0, gt=0, description="How often list and event syncs are compared with the whole audience, in seconds."
    )
    config_poll_seconds: float = Field(
        0.5, gt=0, description="How often changed destinations and syncs are looked for, in seconds."
    )
    plan_mark_seconds: float = Field(
        5.0, gt=0, description="How often the position up to which everything is planned is stored, in seconds."
    )
    delivery_days: int = Field(
        28, ge=1, description="How long deliveries and their account are kept, in days after their events came."
    )
    delivery_log_every_seconds: float = Field(
        60.0,
        ge=0,
        description="How often a request that went well is kept for the delivery log, in seconds, per destination and "
        "process. 0 keeps each; all others are kept in any case.",
    )
    alert_url: str = Field(
        "",
        description="Where alerts go by POST of destinations without a receiver of their own: one is stopped, does not "
        "answer, or a sync waits for approval. Guarded like the addresses of destinations. Empty for nowhere.",
    )
    alert_secret: SecretStr = Field(
        SecretStr(""),
        description="Key with which alerts are signed as Standard Webhooks: whsec_ and Base64, or any text.",
    )
    plugin_attempts: int = Field(
        3, ge=1, description="After how many failures of the plugin an item is parked as failed."
    )

    @field_validator("alert_url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        if url:
            try:
                check_url(url, allow_private=True)
            except AddressRefused as error:
                raise ValueError(f"alert_url: {error}") from None
        return url

    @field_validator("alert_secret")
    @classmethod
    def _usable(cls, secret: SecretStr) -> SecretStr:
        try:
            key_of_secret(secret.get_secret_value())
        except ValueError:
            raise ValueError("alert_secret: what follows whsec_ is not Base64") from None
        return secret

    @model_validator(mode="after")
    def _in_process_for_development_only(self) -> Self:
        if self.plugins_in_process and self.host not in _LOOPBACK:
            raise ValueError("plugins_in_process: only where the service listens on loopback, for development")
        return self

    def plugin_options(self) -> Options:
        """Which plugins are loaded, and how."""
        return Options.of_texts(self.plugins, self.plugin_folders, in_process=self.plugins_in_process)
