"""Fields that a mapping can fill. The defaults read events in Segment's spec, so that none needs a mapping."""

from __future__ import annotations

from headrace_sdk import Field, FieldType

_LETTERS = "lower-case letters of any alphabet, nothing between them"


def _person(*names: str) -> str:
    """Where a trait of a person may stand: on the profile, or in an event of nobody known."""
    places = ("profile.traits", "event.traits", "event.context.traits", "event.properties")
    return " || ".join(f"{place}.{name}" for place in places for name in names)


PEOPLE = (
    Field(
        name="email", title="E-mail", hashed=True, many=True, normalised="trimmed, lower case; dots and +tag stay",
        default=f"profile.identifiers.email || event.identifiers.email || {_person('email')}",
        example="ada@example.com",
    ),
    Field(
        name="phone", title="Phone", hashed=True, many=True, normalised="digits with country code, no leading zeros",
        default=f"profile.identifiers.phone || event.identifiers.phone || {_person('phone')}",
        example="+491711234567",
    ),
    Field(
        name="first_name", title="First name", hashed=True, normalised=_LETTERS,
        default=_person("first_name", "firstName"), example="Ada",
    ),
    Field(
        name="last_name", title="Last name", hashed=True, normalised=_LETTERS,
        default=_person("last_name", "lastName"), example="Lovelace",
    ),
    Field(
        name="gender", title="Gender", hashed=True, normalised="f or m", default=_person("gender"), example="female",
    ),
    Field(
        name="date_of_birth", title="Date of birth", hashed=True, normalised="YYYYMMDD",
        default=_person("date_of_birth", "birthday"), example="1990-02-03",
    ),
    Field(name="doby", title="Year of birth", hashed=True, description="YYYY, where the date is not known."),
    Field(name="dobm", title="Month of birth", hashed=True, description="MM, where the date is not known."),
    Field(name="dobd", title="Day of birth", hashed=True, description="DD, where the date is not known."),
    Field(
        name="city", title="City", hashed=True, normalised=_LETTERS, default=_person("city", "address.city"),
        example="Berlin",
    ),
    Field(
        name="state", title="State", hashed=True, default=_person("state", "address.state"), example="California",
        normalised=f"two-letter code in the United States, elsewhere {_LETTERS}",
    ),
    Field(
        name="zip", title="Postal code", hashed=True, example="94301",
        default=_person("zip", "postal_code", "postalCode", "address.postalCode", "address.zip"),
        normalised="lower case, no spaces and dashes; five digits in the United States",
    ),
    Field(
        name="country", title="Country", hashed=True, default=_person("country", "address.country"), example="DE",
        normalised="two lower-case letters by ISO 3166",
    ),
    Field(
        name="user_id", title="External id", many=True, normalised="trimmed; hashed unless the settings say otherwise",
        default=(
            "event.identifiers.user_id || profile.identifiers.user_id || "
            "event.identifiers.anonymous_id || profile.identifiers.anonymous_id"
        ),
        description="Your own id of the person, as your pixel sends it.", example="u-17", anonymous=True,
    ),
    Field(
        name="ip", title="IP address", default="event.context.ip", example="203.0.113.7", anonymous=True,
        description="Of the person's device. In the clear, as Meta wants it.",
    ),
    Field(
        name="user_agent", title="User agent", default="event.context.userAgent || event.context.user_agent",
        description="Of the person's browser; website events must have it. In the clear.", anonymous=True,
        example="Mozilla/5.0",
    ),
    Field(
        name="fbc", title="Click id with time", anonymous=True, example="fb.1.1796000000000.AbCdEf",
        default=(
            "event.identifiers.fbc || event.context.fbc || event.context.clickIds.fbc || event.properties.fbc || "
            "profile.identifiers.fbc || profile.traits.fbc"
        ),
        description="Value of the cookie _fbc. Without it, it is made of fbclid. In the clear.",
    ),
    Field(
        name="fbclid", title="Click id", anonymous=True, example="AbCdEf",
        default=(
            "event.identifiers.fbclid || event.context.fbclid || event.context.clickIds.fbclid || "
            "event.properties.fbclid || profile.identifiers.fbclid || profile.traits.fbclid"
        ),
        description="Query parameter fbclid of the page that the ad led to; else that of the event's own page.",
    ),
    Field(
        name="fbp", title="Browser id", anonymous=True, example="fb.1.1796000000000.1098115397",
        default=(
            "event.identifiers.fbp || event.context.fbp || event.context.clickIds.fbp || event.properties.fbp || "
            "profile.identifiers.fbp || profile.traits.fbp"
        ),
        description="Value of the cookie _fbp. In the clear.",
    ),
    Field(
        name="madid", title="Advertising id", anonymous=True, default="event.context.device.advertisingId",
        description="IDFA or Android advertising id. In the clear.", normalised="lower case",
        example="aebe52e7-03ee-455a-b3c4-e57283966239",
    ),
    Field(name="subscription_id", title="Subscription id", default="event.properties.subscription_id"),
    Field(
        name="lead_id", title="Lead id", default="event.properties.lead_id || profile.traits.lead_id",
        description="Id of a lead from Meta's lead ads.",
    ),
    Field(name="fb_login_id", title="Facebook login id", default="event.properties.fb_login_id"),
)  # fmt: skip
"""Fields of user_data."""

_TEXT, _NUMBER, _LIST = FieldType.TEXT, FieldType.NUMBER, FieldType.LIST
EVENT = (
    Field(
        name="event_id", title="Event id", default="event.properties.event_id || event.context.event_id",
        description="Equal to the browser event's id, so that Meta counts both once; else the message id.",
    ),
    Field(
        name="action_source", title="Action source",
        default="event.properties.action_source || event.context.action_source",
        description="Where it happened, in Meta's words; else what the settings say.",
    ),
    Field(
        name="event_source_url", title="Page address", default="event.context.page.url || event.properties.url",
        description="Address of the page; website events must have it.", example="https://shop.example/checkout",
    ),
    Field(name="referrer_url", title="Referrer", default="event.context.page.referrer"),
    Field(
        name="opt_out", title="Not for optimisation", type=FieldType.BOOLEAN,
        description="True uses the event for attribution alone.",
    ),
    Field(
        name="limited_data_use", title="Limited Data Use", type=FieldType.BOOLEAN,
        description="True or false for this event; else what the settings say.",
    ),
    Field(
        name="tracking_allowed", title="Tracking allowed", type=FieldType.BOOLEAN,
        default="event.context.device.adTrackingEnabled", description="App events: the person allowed tracking.",
    ),
    Field(
        name="value", title="Value", type=_NUMBER, example="19.9",
        default=(
            "event.properties.revenue || event.properties.value || event.properties.total || event.properties.price"
        ),
    ),
    Field(
        name="currency", title="Currency", default="event.properties.currency", normalised="upper case", example="EUR",
    ),
    Field(
        name="products", title="Products", type=_LIST, default="event.properties.products || event.properties",
        description="A list of products in Segment's spec, or the properties of one. Gives contents and content ids.",
    ),
    Field(
        name="contents", title="Contents", type=_LIST, default="event.properties.contents",
        description="Products in Meta's form (id, quantity, item_price, delivery_category), in place of products.",
    ),
    Field(name="content_ids", title="Content ids", type=_LIST, default="event.properties.content_ids"),
    Field(name="content_type", title="Content type", default="event.properties.content_type"),
    Field(
        name="content_name", title="Content name", default="event.properties.content_name",
        description="Else the name of the event's only product.",
    ),
    Field(
        name="content_category", title="Content category", default="event.properties.content_category",
        description="Else the category of the event's only product.",
    ),
    Field(name="num_items", title="Number of items", type=_NUMBER, default="event.properties.num_items"),
    Field(name="order_id", title="Order id", default="event.properties.order_id"),
    Field(name="search_string", title="Search", default="event.properties.search_string || event.properties.query"),
    Field(name="status", title="Registration status", default="event.properties.status"),
    Field(name="predicted_ltv", title="Lifetime value", type=_NUMBER, default="event.properties.predicted_ltv"),
    Field(name="net_revenue", title="Net revenue", type=_NUMBER, default="event.properties.net_revenue"),
    Field(name="delivery_category", title="Delivery", default="event.properties.delivery_category"),
    Field(
        name="custom_data", title="Other properties", type=FieldType.OBJECT,
        description="More properties for custom conversions. Meta forbids personal and sensitive data in them.",
    ),
)  # fmt: skip
"""Fields of the event and of custom_data."""

FIELDS = (*PEOPLE, *EVENT)
FINDING = (*(field.name for field in PEOPLE if field.name not in ("doby", "dobm", "dobd")), "event_source_url")
"""Of these an event needs one: user_data must not be empty. The page's address may hold a click id."""
