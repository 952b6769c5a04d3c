"""Settings of the custom JavaScript destination."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from headrace_destination_javascript.engine import LONGEST_SCRIPT, MOST_LINES, Script, ScriptError


class JavascriptSettings(BaseModel):
    """The script, and what it is given besides events."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    script: str = Field(
        title="Script",
        max_length=LONGEST_SCRIPT,
        description="Defines function send(event, profile, settings), which returns a request, several in a list, or "
        "null to leave the event out; and, if you like, function forget(person, settings).",
        json_schema_extra={"format": "javascript"},
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        max_length=100,
        title="Settings",
        description="What the script finds in settings.",
    )
    secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        max_length=100,
        title="Secrets",
        description="What the script finds in settings beside these, and nobody else sees: tokens, keys.",
    )
    allow_http: bool = Field(
        False, title="Allow http", description="Takes addresses that begin with http, which send everything in clear."
    )

    @field_validator("script")
    @classmethod
    def _works(cls, script: str) -> str:
        if script.count("\n") >= MOST_LINES:
            raise ValueError(f"has more than {MOST_LINES:,} lines")
        try:
            Script(script).check()
        except ScriptError as error:
            raise ValueError(str(error)) from None
        return script

    @model_validator(mode="after")
    def _different_names(self) -> JavascriptSettings:
        twice = sorted(self.settings.keys() & self.secrets.keys())
        if twice:
            raise ValueError(f"{twice[0]!r} stands in settings and in secrets")
        return self

    def given(self) -> dict[str, Any]:
        """What the script gets as settings."""
        return {**self.settings, **{name: secret.get_secret_value() for name, secret in self.secrets.items()}}
