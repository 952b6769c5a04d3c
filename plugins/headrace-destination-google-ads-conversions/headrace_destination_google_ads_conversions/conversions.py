"""From events to conversions and adjustments.

https://developers.google.com/google-ads/api/reference/rpc/latest/ClickConversion
https://developers.google.com/google-ads/api/reference/rpc/latest/CallConversion
https://developers.google.com/google-ads/api/reference/rpc/latest/ConversionAdjustment
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from headrace_destination_google_ads_conversions import people
from headrace_destination_google_ads_conversions.settings import (
    ConsentDefault,
    ConversionEvent,
    Environment,
    GoogleAdsConversionsSettings,
    Kind,
)
from headrace_sdk import EventItem, RecordRejected

_CLICK_IDS = ("gclid", "wbraid", "gbraid")
_CONSENTS = {"granted": "GRANTED", "denied": "DENIED"}
_VARIABLE = re.compile(r"(?:customers/[0-9]{1,20}/conversionCustomVariables/)?([0-9]{1,20})")


def conversion_of(event: EventItem, chosen: ConversionEvent, settings: GoogleAdsConversionsSettings) -> dict[str, Any]:
    """The conversion or adjustment that an event is.

    Raises:
        RecordRejected: Google would refuse it; the reason says what is missing.
    """
    action = f"customers/{settings.customer_id}/conversionActions/{chosen.conversion_action}"
    if chosen.kind is Kind.CLICK:
        return _click(event, action, settings)
    if chosen.kind is Kind.CALL:
        return _call(event, action, settings)
    return _adjustment(event, action, chosen.kind)


def _click(event: EventItem, action: str, settings: GoogleAdsConversionsSettings) -> dict[str, Any]:
    fields = event.fields
    found: dict[str, Any] = {}
    # One click id alone: gbraid and wbraid exclude each other, and gclid says more than both.
    for name in _CLICK_IDS:
        if not found and (text := _text(fields.get(name))):
            found[name] = text
    consent = _consent(fields, settings)
    may_identify = settings.send_user_identifiers and consent.get("adUserData") != "DENIED"
    identifiers = people.identifiers(fields, with_address=False) if may_identify else []
    if not found and not identifiers:
        raise RecordRejected("has no Google click id, and no e-mail or phone that may be sent", "gclid")
    order_id = _text(fields.get("order_id"))
    if not order_id and not found:
        order_id = event.message_id  # without a click id nothing else tells a repeated conversion from a new one
    has_gclid = "gclid" in found
    found |= {"conversionAction": action, "conversionDateTime": _time("conversion_time", fields)}
    found |= _money(fields, "conversionValue")
    if order_id:
        found["orderId"] = order_id
    if identifiers:
        found["userIdentifiers"] = identifiers
    if settings.send_cart and (has_gclid or not _has_click_id(found)) and (cart := _cart(fields, settings)):
        found["cartData"] = cart
    if settings.environment is not Environment.UNSPECIFIED:
        found["conversionEnvironment"] = settings.environment.upper()
    if _text(fields.get("customer_type")).lower() in ("new", "returning"):
        found["customerType"] = _text(fields.get("customer_type")).upper()
    return found | _more(fields, settings, consent)


def _call(event: EventItem, action: str, settings: GoogleAdsConversionsSettings) -> dict[str, Any]:
    fields = event.fields
    callers = people.sent("caller_id", fields)
    if not callers:
        raise RecordRejected("has no caller id with a plus and the country code (E.164)", "caller_id")
    return {
        "callerId": callers[0],
        "callStartDateTime": _time("call_time", fields),
        "conversionAction": action,
        "conversionDateTime": _time("conversion_time", fields),
        **_money(fields, "conversionValue"),
        **_more(fields, settings, _consent(fields, settings)),
    }


def _adjustment(event: EventItem, action: str, kind: Kind) -> dict[str, Any]:
    fields = event.fields
    found: dict[str, Any] = {"conversionAction": action, "adjustmentType": kind.upper()}
    order_id = _text(fields.get("order_id"))
    if kind is Kind.ENHANCEMENT:
        return found | _enhancement(fields, order_id)
    if order_id:
        found["orderId"] = order_id
    elif (gclid := _text(fields.get("gclid"))) and fields.get("original_time"):
        found["gclidDateTimePair"] = {"gclid": gclid, "conversionDateTime": _time("original_time", fields)}
    else:
        raise RecordRejected("has neither an order id nor a gclid with the time of its conversion", "order_id")
    found["adjustmentDateTime"] = _time("conversion_time", fields)
    if kind is Kind.RESTATEMENT:
        value = _money(fields, "adjustedValue")
        if "adjustedValue" not in value:
            raise RecordRejected("has no value", "value")
        found["restatementValue"] = value
    return found


def _enhancement(fields: Mapping[str, Any], order_id: str) -> dict[str, Any]:
    if not order_id:
        raise RecordRejected("has no order id", "order_id")
    if _said(fields) == "DENIED":
        raise RecordRejected("ad_user_data is denied", "ad_user_data")
    identifiers = people.identifiers(fields, with_address=True)
    if not identifiers:
        raise RecordRejected("has none of e-mail, phone, or full name with postal code and country", "email")
    found: dict[str, Any] = {"orderId": order_id, "userIdentifiers": identifiers}
    if user_agent := _text(fields.get("user_agent")):
        found["userAgent"] = user_agent
    return found


def _more(
    fields: Mapping[str, Any], settings: GoogleAdsConversionsSettings, consent: Mapping[str, str]
) -> dict[str, Any]:
    """What clicks and calls have in common at the end."""
    found: dict[str, Any] = {}
    variables = []
    given = fields.get("custom_variables")
    for name, value in given.items() if isinstance(given, Mapping) else ():
        match, text = _VARIABLE.fullmatch(str(name).strip()), _text(value)
        if match and text:
            resource = f"customers/{settings.customer_id}/conversionCustomVariables/{match[1]}"
            variables.append({"conversionCustomVariable": resource, "value": text})
    if variables:
        found["customVariables"] = variables
    if consent:
        found["consent"] = dict(consent)
    return found


def _consent(fields: Mapping[str, Any], settings: GoogleAdsConversionsSettings) -> dict[str, str]:
    """Consent of a conversion: the API takes adPersonalization for Customer Match alone."""
    said = _said(fields)
    if not said and settings.consent_ad_user_data is ConsentDefault.GRANTED:
        said = "GRANTED"
    return {"adUserData": said} if said else {}


def _said(fields: Mapping[str, Any]) -> str:
    return _CONSENTS.get(_text(fields.get("ad_user_data")).lower(), "")


def _money(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value, currency = _number(fields.get("value")), _text(fields.get("currency")).upper()
    if value is None:
        return {}
    return {name: value, **({"currencyCode": currency} if re.fullmatch("[A-Z]{3}", currency) else {})}


def _cart(fields: Mapping[str, Any], settings: GoogleAdsConversionsSettings) -> dict[str, Any]:
    """The products; empty when there are none that a Merchant Center could know."""
    given = fields.get("items")
    items = []
    for product in given if isinstance(given, list) else []:
        if isinstance(product, Mapping) and (product_id := _text(product.get("product_id") or product.get("sku"))):
            price, quantity = _number(product.get("price")), _number(product.get("quantity"))
            item: dict[str, Any] = {"productId": product_id, "quantity": int(quantity) if quantity else 1}
            items.append({**item, "unitPrice": price} if price is not None else item)
    if not items:
        return {}
    about = {
        "merchantId": settings.merchant_id,
        "feedCountryCode": settings.feed_country,
        "feedLanguageCode": settings.feed_language,
    }
    return {**{name: value for name, value in about.items() if value}, "items": items}


def _has_click_id(found: Mapping[str, Any]) -> bool:
    return any(name in found for name in _CLICK_IDS)


def _time(name: str, fields: Mapping[str, Any]) -> str:
    """A time as Google writes it, yyyy-mm-dd hh:mm:ss+hh:mm, in the zone in which it was given.

    Raises:
        RecordRejected: It is no time.
    """
    given = fields.get(name)
    moment: datetime | None = None
    try:
        if isinstance(given, str):
            moment = datetime.fromisoformat(given.strip())
        elif isinstance(given, int | float) and not isinstance(given, bool):
            moment = datetime.fromtimestamp(given, UTC)
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None:
        raise RecordRejected("is no time" if given else "is missing", name)
    offset = moment.utcoffset() or timedelta(0)
    whole = timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    written = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(whole)
    return written.isoformat(sep=" ", timespec="seconds")


def _number(value: Any) -> int | float | None:
    """A number, also one that is written as text; None when it is none."""
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else value


def _text(value: Any) -> str:
    """A text or number as trimmed text; empty for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
