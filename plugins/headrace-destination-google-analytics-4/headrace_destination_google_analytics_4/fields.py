"""The fields that a mapping can fill. The defaults read events that follow Segment's spec."""

from __future__ import annotations

from headrace_sdk import Field, FieldType

_WHO = (
    Field(
        name="client_id", title="Client id", anonymous=True, example="1234567890.1700000000",
        default="event.identifiers.ga_client_id[0] || profile.identifiers.ga_client_id[0] "
        "|| event.identifiers.anonymous_id[0] || profile.identifiers.anonymous_id[0] "
        "|| event.identifiers.user_id[0] || profile.id",
        description="Web streams: the browser, best the one that gtag.js gave it, as the cookie _ga has it.",
    ),
    Field(
        name="app_instance_id", title="App instance id", anonymous=True,
        default="event.identifiers.app_instance_id[0] || profile.identifiers.app_instance_id[0] "
        "|| event.context.app_instance_id || event.properties.app_instance_id",
        description="App streams: the installation, as the Firebase SDK tells it.",
    ),
    Field(
        name="user_id", title="User id",
        default="event.identifiers.user_id[0] || profile.identifiers.user_id[0]",
        description="Your own id of the person. Google forbids e-mail addresses and the like here.",
    ),
    Field(
        name="session_id", title="Session id", anonymous=True,
        default="event.identifiers.ga_session_id[0] || event.context.session_id || event.context.sessionId "
        "|| event.properties.session_id",
        description="Of the visit; without it the event is in no session and not in Realtime.",
    ),
    Field(
        name="engagement_time_msec", title="Engagement time", type=FieldType.NUMBER,
        default="event.properties.engagement_time_msec || `1`",
        description="Milliseconds since the event before; without it the event is not in Realtime.",
    ),
    Field(
        name="user_properties", title="User properties", type=FieldType.OBJECT,
        description="Name to value: at most 25, names up to 24 characters, values up to 36. No personal data.",
    ),
    Field(name="ad_user_data", title="Consent: ad user data", default="profile.consents.ad_user_data",
          description="granted or denied; left out, Google takes what the browser said."),
    Field(name="ad_personalization", title="Consent: ad personalisation", default="profile.consents.ad_personalization",
          description="granted or denied; left out, Google takes what the browser said."),
    Field(name="user_agent", title="User agent", anonymous=True,
          description="Such as event.context.userAgent, where no browser of the person sends events itself."),
    Field(name="ip_override", title="IP address", anonymous=True,
          description="Such as event.context.ip: Google finds the region by it."),
    Field(name="user_location", title="Location", type=FieldType.OBJECT,
          description="city, region_id, country_id, subcontinent_id, continent_id."),
    Field(name="device", title="Device", type=FieldType.OBJECT,
          description="category, language, screen_resolution, operating_system, browser and so on."),
)  # fmt: skip
_PERSON = (
    Field(name="email", title="E-mail", hashed=True, many=True, example=" Ada.Byron+x@Gmail.com",
          default="profile.identifiers.email || profile.traits.email",
          normalised="lower case; at gmail.com and googlemail.com without dots and +tag"),
    Field(name="phone", title="Phone", hashed=True, many=True, example="+49 171 1234567",
          default="profile.identifiers.phone || profile.traits.phone", normalised="E.164 with its plus"),
    Field(name="first_name", title="First name", hashed=True, example="Ada",
          default="profile.traits.first_name || profile.traits.firstName",
          normalised="lower case, no digits and symbols"),
    Field(name="last_name", title="Last name", hashed=True, example="Byron",
          default="profile.traits.last_name || profile.traits.lastName",
          normalised="lower case, no digits and symbols"),
    Field(name="street", title="Street", hashed=True, example="12 St James's Square",
          default="profile.traits.street || profile.traits.address.street", normalised="lower case, no symbols"),
    Field(name="city", title="City", default="profile.traits.city || profile.traits.address.city",
          normalised="lower case, no digits and symbols", example="London"),
    Field(name="state", title="State", default="profile.traits.state || profile.traits.address.state",
          normalised="lower case, no digits and symbols", example="California"),
    Field(name="zip", title="Postal code", example="SW1Y 4JH",
          default="profile.traits.zip || profile.traits.postal_code || profile.traits.address.postalCode",
          normalised="trimmed, no dots and tildes"),
    Field(name="country", title="Country", example="GB",
          default="profile.traits.country || profile.traits.address.country",
          normalised="two upper-case letters by ISO 3166"),
)  # fmt: skip
_PAGE = (
    Field(name="page_location", title="Page address", default="event.context.page.url || event.properties.url"),
    Field(name="page_referrer", title="Referrer",
          default="event.context.page.referrer || event.properties.referrer"),
    Field(name="page_title", title="Page title", default="event.context.page.title || event.properties.title"),
    Field(name="screen_name", title="Screen", default="event.properties.screen_name || event.name"),
    Field(name="screen_class", title="Screen class", default="event.properties.screen_class"),
)  # fmt: skip
_COMMERCE = (
    Field(name="transaction_id", title="Order id", example="T-1001",
          default="event.properties.order_id || event.properties.orderId || event.properties.transaction_id",
          description="By it Google counts a purchase once, whoever reports it."),
    Field(name="value", title="Value", type=FieldType.NUMBER, example="29.9",
          default="event.properties.revenue || event.properties.value || event.properties.total",
          description="Without tax and shipping."),
    Field(name="currency", title="Currency", default="event.properties.currency", example="EUR",
          normalised="three upper-case letters by ISO 4217"),
    Field(name="tax", title="Tax", type=FieldType.NUMBER, default="event.properties.tax"),
    Field(name="shipping", title="Shipping", type=FieldType.NUMBER, default="event.properties.shipping"),
    Field(name="coupon", title="Coupon", default="event.properties.coupon"),
    Field(name="customer_type", title="Customer type", default="event.properties.customer_type",
          description="new or returning."),
    Field(name="payment_type", title="Payment",
          default="event.properties.payment_type || event.properties.payment_method"),
    Field(name="shipping_tier", title="Delivery",
          default="event.properties.shipping_tier || event.properties.shipping_method"),
    Field(name="items", title="Products", type=FieldType.LIST,
          default="event.properties.products || event.properties.items",
          description="Objects with product_id, sku, name, price, quantity, category, brand, variant, position, ..."),
    Field(name="product", title="Product", type=FieldType.OBJECT, default="event.properties",
          description="The product of an event about one, where there is no list."),
    Field(name="item_list_id", title="List id",
          default="event.properties.item_list_id || event.properties.list_id"),
    Field(name="item_list_name", title="List name",
          default="event.properties.item_list_name || event.properties.list || event.properties.category"),
    Field(name="promotion_id", title="Promotion id", default="event.properties.promotion_id"),
    Field(name="promotion_name", title="Promotion name",
          default="event.properties.promotion_name || event.properties.name"),
    Field(name="creative_name", title="Creative",
          default="event.properties.creative_name || event.properties.creative"),
    Field(name="creative_slot", title="Slot", default="event.properties.creative_slot || event.properties.position"),
)  # fmt: skip
_OTHERS = (
    Field(name="search_term", title="Search term", default="event.properties.search_term || event.properties.query"),
    Field(name="method", title="Method", default="event.properties.method || event.properties.share_via"),
    Field(name="content_type", title="Content type", default="event.properties.content_type"),
    Field(name="content_id", title="Content id", default="event.properties.content_id"),
    Field(name="item_id", title="Item id",
          default="event.properties.item_id || event.properties.product_id || event.properties.cart_id"),
    Field(name="group_id", title="Group id", default="event.group_id || event.properties.group_id"),
    Field(name="lead_source", title="Lead source", default="event.properties.lead_source"),
    Field(name="params", title="Further parameters", type=FieldType.OBJECT, default="event.properties",
          description="Name to value. What the event's own parameters were read from is left out. No personal data."),
)  # fmt: skip

FIELDS = (*_WHO, *_PERSON, *_PAGE, *_COMMERCE, *_OTHERS)
