"""The fields that a mapping can fill. The defaults read events that follow Segment's spec."""

from __future__ import annotations

from headrace_sdk import Field, FieldType


def _click_id(name: str, title: str, description: str) -> Field:
    sources = ("event.identifiers.{}[0]", "event.properties.{}", "event.context.clickIds.{}", "event.context.{}")
    return Field(
        name=name, title=title, anonymous=True, description=description,
        default=" || ".join(source.format(name) for source in sources),
    )  # fmt: skip


FIELDS = (
    _click_id("gclid", "Google click id", "Of the click on the ad. It wins over the two below."),
    _click_id("wbraid", "Click id for websites", "Of clicks in iOS apps that lead to a website."),
    _click_id("gbraid", "Click id for apps", "Of clicks that lead to an iOS app."),
    Field(name="conversion_time", title="Time", type=FieldType.TIME, default="event.timestamp",
          description="Of the conversion; of the adjustment where it is one."),
    Field(name="original_time", title="Time of the adjusted conversion", type=FieldType.TIME,
          default="event.properties.conversion_time || event.properties.conversionDateTime",
          description="Restatements and retractions of conversions without an order id."),
    Field(name="order_id", title="Order id", example="T-1001",
          default="event.properties.order_id || event.properties.orderId || event.properties.transaction_id",
          description="Google counts one conversion per order id and action; adjustments find it by this."),
    Field(name="value", title="Value", type=FieldType.NUMBER, example="29.9",
          default="event.properties.revenue || event.properties.value || event.properties.total"),
    Field(name="currency", title="Currency", default="event.properties.currency", example="EUR",
          normalised="three upper-case letters by ISO 4217"),
    Field(name="items", title="Products", type=FieldType.LIST, default="event.properties.products",
          description="Objects with product_id (or sku), quantity and price."),
    Field(name="caller_id", title="Caller", example="+49 171 1234567", normalised="E.164 with its plus",
          default="event.properties.caller_id || event.properties.callerId || profile.identifiers.phone[0]",
          description="Calls: the number that called. Sent in the clear, as Google wants it."),
    Field(name="call_time", title="Time of the call", type=FieldType.TIME,
          default="event.properties.call_start_time || event.properties.callStartDateTime"),
    Field(name="email", title="E-mail", hashed=True, many=True, example=" Ada.Byron+x@Gmail.com",
          default="profile.identifiers.email || profile.traits.email",
          normalised="lower case; at gmail.com and googlemail.com without dots and +tag"),
    Field(name="phone", title="Phone", hashed=True, many=True, example="+49 171 1234567",
          default="profile.identifiers.phone || profile.traits.phone", normalised="E.164 with its plus"),
    Field(name="first_name", title="First name", hashed=True, example="Ada",
          default="profile.traits.first_name || profile.traits.firstName", normalised="lower case",
          description="Enhancements."),
    Field(name="last_name", title="Last name", hashed=True, example="Byron",
          default="profile.traits.last_name || profile.traits.lastName", normalised="lower case",
          description="Enhancements."),
    Field(name="street", title="Street", hashed=True, example="12 St James's Square",
          default="profile.traits.street || profile.traits.address.street", normalised="lower case",
          description="Enhancements."),
    Field(name="city", title="City", example="London",
          default="profile.traits.city || profile.traits.address.city", normalised="lower case, no punctuation",
          description="Enhancements. Sent in the clear, as Google wants it."),
    Field(name="state", title="State", example="CA",
          default="profile.traits.state || profile.traits.address.state", normalised="lower case, no punctuation",
          description="Enhancements. Sent in the clear, as Google wants it."),
    Field(name="zip", title="Postal code", example="SW1Y 4JH", normalised="trimmed",
          default="profile.traits.zip || profile.traits.postal_code || profile.traits.address.postalCode",
          description="Enhancements. Sent in the clear, as Google wants it."),
    Field(name="country", title="Country", example="gb", normalised="two upper-case letters by ISO 3166",
          default="profile.traits.country || profile.traits.address.country",
          description="Enhancements. Sent in the clear, as Google wants it."),
    Field(name="user_agent", title="User agent", anonymous=True,
          default="event.context.userAgent || event.context.user_agent",
          description="Enhancements: of the visit that converted."),
    Field(name="customer_type", title="Customer type", default="event.properties.customer_type",
          description="new or returning."),
    Field(name="custom_variables", title="Custom variables", type=FieldType.OBJECT,
          description="Id or resource name of a conversion custom variable to its value."),
    Field(name="ad_user_data", title="Consent: ad user data", default="profile.consents.ad_user_data",
          description="granted or denied."),
)  # fmt: skip
