"""What a mapping can fill. Defaults read Segment's spec, so that its events need no mapping."""

from __future__ import annotations

from headrace_sdk import Field, FieldType

FIELDS = (
    Field(name="email", title="E-mail", hashed=True, many=True, example=" Ada.Byron@Example.com",
          default="profile.identifiers.email || profile.traits.email || event.properties.email",
          normalised="lower case; dots and +tag stay"),
    Field(name="li_fat_id", title="Click id", anonymous=True, example="df5gf5-gh6t7-ph4j7h-fgf6n1",
          default="event.identifiers.li_fat_id[0] || event.properties.li_fat_id || event.context.li_fat_id "
          "|| profile.identifiers.li_fat_id[0]",
          description="The parameter or cookie li_fat_id; read from the page's address where it is not given."),
    Field(name="acxiom_id", title="Acxiom id", anonymous=True,
          description="LiveRamp's identity link, ACXIOM_ID at LinkedIn."),
    Field(name="oracle_moat_id", title="Oracle Moat id", anonymous=True),
    Field(name="gaid", title="Google advertising id", anonymous=True,
          description="Of an Android device; LinkedIn takes it since version 202605."),
    Field(name="user_id", title="External id",
          description="Your own id of the person; LinkedIn learns it from events that also have one of the others. "
          "Sent in the clear, as LinkedIn wants it."),
    Field(name="first_name", title="First name", example="Ada",
          default="profile.traits.first_name || profile.traits.firstName",
          description="Sent in the clear and only with the last name."),
    Field(name="last_name", title="Last name", example="Byron",
          default="profile.traits.last_name || profile.traits.lastName"),
    Field(name="job_title", title="Job title", default="profile.traits.title || profile.traits.job_title"),
    Field(name="company", title="Company", default="profile.traits.company.name || profile.traits.company"),
    Field(name="country", title="Country", example="GB", normalised="two upper-case letters by ISO 3166",
          default="profile.traits.country || profile.traits.address.country"),
    Field(name="page_url", title="Page address", anonymous=True, default="event.context.page.url",
          description="For the click id in it; not sent."),
    Field(name="event_id", title="Event id", default="event.properties.event_id || event.message_id",
          description="LinkedIn counts an event of an id once, whether the Insight Tag or this sends it."),
    Field(name="value", title="Value", type=FieldType.NUMBER, example="29.9",
          default="event.properties.revenue || event.properties.value || event.properties.total",
          description="Sent with its currency only."),
    Field(name="currency", title="Currency", default="event.properties.currency", example="EUR",
          normalised="three upper-case letters by ISO 4217"),
)  # fmt: skip

FINDING = ("email", "li_fat_id", "acxiom_id", "oracle_moat_id", "gaid", "first_name", "page_url")
"""Of these an event needs one: the name goes with the last name, and the page's address may hold a click id."""
