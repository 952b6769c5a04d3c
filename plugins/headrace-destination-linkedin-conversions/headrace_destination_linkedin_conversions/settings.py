"""Settings of the LinkedIn Conversions API destination."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from headrace_sdk.settings import Address, Settings, Token

DEFAULT_VERSION = "202607"
VERSION_ENDS = {
    "202510": "2026-10-15", "202511": "2026-11-16", "202601": "2027-01-15", "202602": "2027-02-15",
    "202603": "2027-03-16", "202604": "2027-04-15", "202605": "2027-05-15", "202606": "2027-06-15",
    "202607": "2027-07-15",
}  # fmt: skip
"""Days on which LinkedIn stops answering a version, as its table of migrations said in August 2026.

https://learn.microsoft.com/en-us/linkedin/marketing/integrations/migrations
"""
_RULE = re.compile(r"[0-9]{1,20}")


class LinkedInConversionsSettings(Settings):
    """Which conversion rules, and who sends."""

    access_token: Token = Field(
        title="Access token",
        description="With the permissions rw_conversions and r_ads, of a member who manages the ad account.",
    )
    conversion_rules: dict[str, str] = Field(
        default_factory=dict,
        title="Conversion rules",
        description="Your event name to the id of a conversion rule; empty leaves the event out.",
    )
    conversion_rule: str = Field(
        "",
        title="Rule of all others",
        description="Id of the conversion rule of events that have none of their own; empty leaves them out.",
    )
    account_id: str = Field(
        "",
        pattern=r"^[0-9]{0,20}$",
        title="Ad account id",
        description="For the check of the destination alone, which looks at the account's conversion rules.",
    )
    api_version: str = Field(
        DEFAULT_VERSION,
        pattern=r"^20[0-9]{2}(0[1-9]|1[0-2])$",
        title="API version",
        description="Version of the Marketing API, YYYYMM. Each lives about a year: dry runs warn before its end.",
    )
    base_url: Address = Field(
        "https://api.linkedin.com", title="Address", description="Where the API is; others are for tests."
    )

    @field_validator("conversion_rule")
    @classmethod
    def _rule(cls, rule: str) -> str:
        return _id_of(rule)

    @field_validator("conversion_rules")
    @classmethod
    def _rules(cls, rules: dict[str, str]) -> dict[str, str]:
        return {name: _id_of(rule) for name, rule in rules.items()}


def _id_of(rule: str) -> str:
    """The number of a conversion rule, which may be given as its URN."""
    number = rule.strip().rpartition(":")[2]
    if number and not _RULE.fullmatch(number):
        raise ValueError("must be the number of a conversion rule, or its URN")
    return number
