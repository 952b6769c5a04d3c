"""Names: which event of TikTok an event is.

Since May 2025 the names are Purchase and Lead; CompletePayment and SubmitForm are their former names, ClickButton and
PlaceAnOrder end in 2027.
https://ads.tiktok.com/help/article/supported-standard-events
https://ads.tiktok.com/help/article/how-to-adopt-tiktoks-updated-standard-events
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace_sdk import EventItem, StandardEvent
from headrace_sdk.commerce import event_name

PURCHASE = "Purchase"
PAGE_VIEW = "Pageview"

STANDARD_EVENTS = (
    StandardEvent(name="AddPaymentInfo", names=("Payment Info Entered",)),
    StandardEvent(name="AddToCart", names=("Product Added",)),
    StandardEvent(name="AddToWishlist", names=("Product Added to Wishlist",)),
    StandardEvent(name="ApplicationApproval", names=("Application Approved",)),
    StandardEvent(name="CompleteRegistration", names=("Signed Up", "Account Created")),
    StandardEvent(name="Contact", names=("Contacted",)),
    StandardEvent(name="CustomizeProduct", names=("Product Customized",)),
    StandardEvent(name="Download", names=("File Downloaded",)),
    StandardEvent(name="FindLocation", names=("Location Searched",)),
    StandardEvent(name="InitiateCheckout", names=("Checkout Started",)),
    StandardEvent(name="InstallApp", names=("Application Installed",)),
    StandardEvent(name="LaunchAPP", names=("Application Opened",)),
    StandardEvent(name="Lead", names=("Lead Generated", "Form Submitted", "SubmitForm")),
    StandardEvent(name=PAGE_VIEW, names=("Page Viewed", "page_view")),
    StandardEvent(name=PURCHASE, names=("Order Completed", "CompletePayment")),
    StandardEvent(name="Schedule", names=("Appointment Scheduled",)),
    StandardEvent(name="Search", names=("Products Searched",)),
    StandardEvent(name="StartTrial", names=("Trial Started",)),
    StandardEvent(name="SubmitApplication", names=("Application Submitted",)),
    StandardEvent(name="Subscribe", names=("Subscribed", "Subscription Started")),
    StandardEvent(name="ViewContent", names=("Product Viewed", "Product List Viewed")),
)  # fmt: skip


def name_of(event: EventItem, chosen: Mapping[str, str]) -> tuple[str, str]:
    """TikTok's name of an event, or "" and the reason why it is left out.

    Events of other names go under their own: TikTok calls them custom events. A page is a page view.
    """
    if event.kind not in ("track", "page", "screen"):
        return "", f"TikTok has no {event.kind} events"
    name = event.name.strip()
    found = event_name(name, STANDARD_EVENTS, chosen) if name else None
    if event.kind == "page" and not found and found != "":
        found = event_name(PAGE_VIEW, STANDARD_EVENTS, chosen)
    if found == "":
        return "", "the setting event_names leaves it out"
    if found is None and event.kind == "screen":
        return "", "TikTok has no screen events: name one in the setting event_names"
    if found is None and not name:
        return "", "has no name"
    return found or name, ""
