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
        default="event.identifiers.user_id || profile.identifiers.user_id", example="u-17",
        description="Your own id of the person, as your pixel sends it.",
    ),
    Field(
        name="madid", title="Advertising id", anonymous=True, normalised="lower case",
        description="IDFA or Android advertising id. In the clear.", example="aebe52e7-03ee-455a-b3c4-e57283966239",
    ),
    Field(
        name="lead_id", title="Lead id", default="event.properties.lead_id || profile.traits.lead_id",
        description="Id of a lead from Meta's lead ads.",
    ),
)  # fmt: skip
"""Fields of user_data."""

_NUMBER, _LIST = FieldType.NUMBER, FieldType.LIST
EVENT = (
    Field(
        name="event_id", title="Event id", default="event.properties.event_id || event.context.event_id",
        description="Else the message id.",
    ),
    Field(
        name="limited_data_use", title="Limited Data Use", type=FieldType.BOOLEAN,
        description="True or false for this event; else what the settings say.",
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
        name="order_id", title="Order id", default="event.properties.order_id", example="o-7",
        description="Number of the receipt. With it Meta counts an order once; without it, by the person.",
    ),
    Field(
        name="item_number", title="Item number", default="event.properties.item_number",
        description="Tells events of one order apart.",
    ),
    Field(
        name="products", title="Products", type=_LIST, default="event.properties.products || event.properties",
        description="A list of products in Segment's spec, or the properties of one. Gives contents.",
    ),
    Field(
        name="contents", title="Contents", type=_LIST, default="event.properties.contents",
        description="Products in Meta's form (id, quantity, item_price, delivery_category), in place of products.",
    ),
    Field(name="content_type", title="Content type", default="event.properties.content_type"),
    Field(
        name="custom_data", title="Other properties", type=FieldType.OBJECT,
        description="More properties for custom conversions. Meta forbids personal and sensitive data in them.",
    ),
)  # fmt: skip
"""Fields of the event and of custom_data."""

FIELDS = (*PEOPLE, *EVENT)
FINDING = tuple(field.name for field in PEOPLE if field.name not in ("doby", "dobm", "dobd"))
"""Of these an event needs one: user_data must not be empty."""
