"""Settings of the LinkedIn matched audiences destination."""

from __future__ import annotations

from pydantic import Field

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


class LinkedInAudienceSettings(Settings):
    """Which segment, and who asks."""

    access_token: Token = Field(
        title="Access token",
        description="With the permission rw_dmp_segments, of a member who may change the ad account.",
    )
    segment_id: str = Field(
        pattern=r"^[0-9]{1,20}$", title="Segment id", description="Id of a DMP segment of the type USER."
    )
    account_id: str = Field(
        pattern=r"^[0-9]{1,20}$", title="Ad account id", description="To show its segments and make one."
    )
    source_platform: str = Field(
        "",
        pattern=r"^[A-Z0-9_]{0,64}$",
        title="Source platform",
        description="The name that LinkedIn gave your program with its access; needed to make a segment.",
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
