"""Settings of the Slack destination."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from headrace_destination_slack import messages
from headrace_sdk.settings import Address, absolute_url


class SlackSettings(BaseModel):
    """Where messages go, and what they say."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    webhook_url: SecretStr | None = Field(
        None,
        title="Incoming webhook",
        description="Address that Slack made for one channel, https://hooks.slack.com/services/... Either this or "
        "the bot token.",
    )
    bot_token: SecretStr | None = Field(
        None,
        title="Bot token",
        description="xoxb-..., of an app with the scope chat:write that was invited to the channel.",
    )
    channel: str = Field(
        "",
        max_length=100,
        title="Channel",
        description="With a bot token: id of the channel, such as C1234567890. The field channel overrides it.",
    )
    message: str = Field(
        messages.DEFAULT,
        min_length=1,
        max_length=10_000,
        title="Message",
        description="In Slack's mrkdwn; ${name} stands for the field of that name, ${properties.plan} for a member.",
    )
    messages: dict[str, str] = Field(
        default_factory=dict,
        title="Messages by event",
        description='Event name (or "identify", "group" ...) to its own message. Empty leaves the event out.',
    )
    event_names: dict[str, str] = Field(
        default_factory=dict,
        title="Event names",
        description="Event name to what the message calls it. Empty leaves the event out.",
    )
    unfurl_links: bool = Field(False, title="Previews of links", description="Lets Slack show what links point to.")
    base_url: Address = Field("https://slack.com/api", title="Address", description="Of Slack's Web API.")

    @field_validator("webhook_url")
    @classmethod
    def _webhook(cls, url: SecretStr | None) -> SecretStr | None:
        return SecretStr(absolute_url(url.get_secret_value())) if url and url.get_secret_value() else None

    @field_validator("bot_token")
    @classmethod
    def _token(cls, token: SecretStr | None) -> SecretStr | None:
        text = token.get_secret_value() if token else ""
        if not text.isascii() or " " in text or (text and not text.isprintable()):
            raise ValueError("must be printable ASCII characters without spaces")
        return token if text else None

    @field_validator("message", "messages")
    @classmethod
    def _templates(cls, given: str | dict[str, str]) -> str | dict[str, str]:
        for template in [given] if isinstance(given, str) else given.values():
            messages.check(template)
        return given

    @model_validator(mode="after")
    def _one_way(self) -> SlackSettings:
        if (self.webhook_url is None) == (self.bot_token is None):
            raise ValueError("set either webhook_url or bot_token")
        if self.webhook_url is not None and self.channel:
            raise ValueError("a webhook belongs to one channel: leave channel empty")
        return self
