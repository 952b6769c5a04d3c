"""Audiences that most shops want, in text form, to begin with: names and windows are for people to change."""

from __future__ import annotations

from typing import NamedTuple


class Suggested(NamedTuple):
    """A suggestion: its id, a name and a sentence for people, and the definition in text form."""

    id: str
    display_name: str
    description: str
    definition: str


SUGGESTED = (
    Suggested(
        "viewed-not-purchased",
        "Viewed, not purchased",
        "Looked at products in the last 90 days and bought nothing in that time.",
        'performed "Product viewed" in last 90d and not performed Purchased in last 90d',
    ),
    Suggested(
        "abandoned-cart",
        "Abandoned cart",
        "Put something into the cart in the last 14 days and did not buy within a day of it.",
        'sequence ("Added to cart" then not Purchased within 24h) in last 14d',
    ),
    Suggested(
        "lapsed-buyers",
        "Lapsed buyers",
        "Bought something in the last year, and nothing in the last 90 days.",
        "stopped Purchased active within 365d inactive for 90d",
    ),
    Suggested(
        "high-value",
        "High value",
        "Spent 500 or more in the last 180 days, in the currency of your events.",
        "performed Purchased in last 180d sum(value) >= 500",
    ),
    Suggested(
        "new-visitors",
        "New visitors",
        "Were seen on the website for the first time in the last 7 days, and have bought nothing.",
        'first performed ("First visit", "Product viewed") in last 7d and not performed Purchased',
    ),
    Suggested(
        "first-time-buyers",
        "First-time buyers",
        "Bought for the first time in the last 30 days.",
        "first performed Purchased in last 30d",
    ),
    Suggested(
        "regular-buyers",
        "Regular buyers",
        "Bought in at least 4 of the last 6 periods of 30 days.",
        "regularly Purchased in at least 4 of 6 periods of 30d",
    ),
    Suggested(
        "back-again",
        "Back again",
        "Bought something in the last 14 days after 180 days without buying.",
        "restarted Purchased inactive for 180d active within 14d",
    ),
)
