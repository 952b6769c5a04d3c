"""A shop's traffic, made up from a seed, together with what a perfect platform would find in it.

The story is told per person, not per rule: people browse on their devices, some sign up, sign in on a second
device, buy, share a computer; the CRM knows some of them. So the truth written down here does not come
from the code that it checks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from headrace.domain.times import DAY_US, HOUR_US, MINUTE_US, SECOND_US, format_time_us

PRODUCTS = [
    ("P-100", "Trail shoe", 89.0),
    ("P-101", "Rain jacket", 120.0),
    ("P-102", "Water bottle", 14.5),
    ("P-103", "Head lamp", 39.9),
    ("P-104", "Tent for two", 249.0),
]


@dataclass(frozen=True)
class Message:
    """One message to send: a Segment message for the HTTP API, or a body for the CRM's webhook."""

    body: dict[str, Any]
    webhook: bool = False
    wave: int = 1
    """Waves are sent one after the other, each when the one before is resolved: time lies between them."""


@dataclass
class Person:
    """One profile that the platform should find, with everything that belongs to it."""

    key: str
    identifiers: set[tuple[str, str]] = field(default_factory=set)
    message_ids: set[str] = field(default_factory=set)
    events: list[tuple[str, int]] = field(default_factory=list)
    """(event name, event time in microseconds) of each different message."""
    traits: dict[str, Any] = field(default_factory=dict)

    def count(self, name: str, from_us: int, to_us: int) -> int:
        """How many events of a name lie in (from_us, to_us]."""
        return sum(1 for event, moment in self.events if event == name and from_us < moment <= to_us)


@dataclass
class Story:
    """The traffic and the truth about it."""

    messages: list[Message] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    crm_messages: int = 0

    @property
    def purchases(self) -> set[str]:
        """Message ids of all purchases."""
        return {m.body["messageId"] for m in self.messages if m.body.get("event") == "Purchased"}

    @property
    def distinct_events(self) -> int:
        """Number of different events in the traffic, whatever was sent twice."""
        return len({m.body["messageId"] for m in self.messages if not m.webhook}) + self.crm_messages

    def look_around(self, count: int, now_us: int) -> list[Message]:
        """Let the first anonymous visitors view a product right now; adds to the truth and returns the messages."""
        visitors = [p for p in self.people if p.key.startswith("visitor-")][:count]
        messages = []
        for person in visitors:
            message_id = f"live-{person.key}"
            person.message_ids.add(message_id)
            person.events.append(("Product viewed", now_us))
            device = next(value for namespace, value in person.identifiers if namespace == "anonymous_id")
            body = {"type": "track", "event": "Product viewed", "messageId": message_id, "anonymousId": device}
            messages.append(
                Message({**body, "timestamp": format_time_us(now_us), "properties": {"product_id": "P-100"}})
            )
        self.messages += messages
        return messages


def simulate(*, people: int, now_us: int, seed: int = 1) -> Story:
    """Make up the last 60 days of a shop.

    Args:
        people: Number of persons; at least 20, so that every kind of behaviour occurs.
        now_us: The story's end, in microseconds since 1970 UTC.
        seed: The same seed, number and time give the same story.
    """
    return _Shop(random.Random(seed), now_us).tell(people)  # noqa: S311 - a story, not a secret


class _Shop:
    def __init__(self, rng: random.Random, now_us: int) -> None:
        self._rng = rng
        self._now_us = now_us
        self._story = Story()
        self._serial = 0

    def tell(self, count: int) -> Story:
        for number in range(count):
            kind = number % 10
            if kind < 3:
                self._anonymous_visitor(number)
            elif kind < 8:
                self._customer(number, devices=1 + number % 3, buys=number % 4)
            elif kind == 8:
                self._shared_computer(number)
            else:
                self._crm_only(number)
        self._send_some_again()
        self._deliver_some_late()
        return self._story

    def _anonymous_visitor(self, number: int) -> None:
        person = self._person(f"visitor-{number}")
        device = self._device(number, 0)
        for moment in self._visits(self._rng.randint(1, 4)):
            self._browse(person, {"anonymousId": device}, moment)

    def _customer(self, number: int, *, devices: int, buys: int) -> None:
        person = self._person(f"customer-{number}")
        user, traits = self._account(number)
        visits = list(self._visits(devices * 2 + buys))
        for place, device_number in enumerate(range(devices)):
            device = self._device(number, device_number)
            first, second = visits[place * 2], visits[place * 2 + 1]
            self._browse(person, {"anonymousId": device}, first)
            self._identify(person, {"anonymousId": device, "userId": user}, traits, second)
        device = self._device(number, 0)
        for moment in visits[devices * 2 :]:
            self._buy(person, {"anonymousId": device, "userId": user}, moment)
        if number % 5 == 0:
            self._crm(person, number, traits["email"], plan="gold")

    def _shared_computer(self, number: int) -> None:
        """Two people on one computer: its anonymous id, and what happens on it signed out, stays with the first."""
        first, second = self._person(f"first-{number}"), self._person(f"second-{number}")
        computer = self._device(number, 0)
        early, later, latest, last = self._visits(4)
        user, traits = self._account(number)
        self._browse(first, {"anonymousId": computer}, early)
        self._identify(first, {"anonymousId": computer, "userId": user}, traits, later)
        other, other_traits = self._account(number + 100_000)
        self._identify(second, {"anonymousId": computer, "userId": other}, other_traits, latest, wave=2)
        second.identifiers.discard(("anonymous_id", computer))
        self._buy(second, {"userId": other}, last, wave=2)

    def _crm_only(self, number: int) -> None:
        person = self._person(f"crm-{number}")
        self._crm(person, number, f"crm{number}@example.com", plan="silver")

    def _browse(self, person: Person, who: dict[str, str], moment: int) -> None:
        self._send(person, {"type": "page", "name": "Home", **who}, moment)
        for step in range(self._rng.randint(1, 3)):
            self._send(person, self._track("Product viewed", who), moment + (step + 1) * MINUTE_US)

    def _buy(self, person: Person, who: dict[str, str], moment: int, *, wave: int = 1) -> None:
        for step, name in enumerate(("Product viewed", "Added to cart", "Checkout made", "Purchased")):
            self._send(person, self._track(name, who), moment + step * MINUTE_US, wave=wave)

    def _identify(
        self, person: Person, who: dict[str, str], traits: dict[str, Any], moment: int, *, wave: int = 1
    ) -> None:
        person.traits.update(traits)
        person.identifiers.add(("email", traits["email"]))
        self._send(person, {"type": "identify", "traits": traits, **who}, moment, wave=wave)

    def _crm(self, person: Person, number: int, email: str, *, plan: str) -> None:
        contact = {"id": f"crm-{number}", "email": email.upper(), "plan": plan}
        person.identifiers |= {("crm_id", f"crm-{number}"), ("email", email)}
        person.traits["plan"] = plan
        self._story.crm_messages += 1
        self._story.messages.append(Message({"contact": contact}, webhook=True))

    def _track(self, name: str, who: dict[str, str]) -> dict[str, Any]:
        sku, title, price = self._rng.choice(PRODUCTS)
        properties = {"product_id": sku, "product_name": title, "value": price, "currency": "EUR"}
        return {"type": "track", "event": name, "properties": properties, **who}

    def _send(self, person: Person, message: dict[str, Any], moment: int, *, wave: int = 1) -> None:
        self._serial += 1
        message_id = f"demo-{self._serial:07d}"
        person.message_ids.add(message_id)
        person.events.append((message.get("event", message["type"]), moment))
        for key, namespace in (("userId", "user_id"), ("anonymousId", "anonymous_id")):
            if key in message:
                person.identifiers.add((namespace, message[key]))
        body = {"messageId": message_id, "timestamp": format_time_us(moment), **message}
        self._story.messages.append(Message(body, wave=wave))

    def _send_some_again(self) -> None:
        tracked = [m for m in self._story.messages if not m.webhook]
        self._story.messages += [Message(m.body, wave=2) for m in tracked[:: max(len(tracked) // 25, 1)]]

    def _deliver_some_late(self) -> None:
        """Some events reach the platform long after they happened, out of order."""
        messages = self._story.messages
        for place in range(11, len(messages), 37):
            message = messages[place]
            if not message.webhook and message.wave == 1 and message.body.get("type") == "track":
                messages[place] = Message(message.body, wave=2)

    def _visits(self, count: int) -> Iterator[int]:
        """Moments in the last 60 days, in order, each at least hours away from every window's edge and the end."""
        days = sorted(self._rng.sample(range(1, 60), count))
        for day in days:
            yield self._now_us - day * DAY_US + 6 * HOUR_US + self._rng.randrange(8 * HOUR_US // SECOND_US) * SECOND_US

    def _person(self, key: str) -> Person:
        person = Person(key)
        self._story.people.append(person)
        return person

    def _device(self, number: int, which: int) -> str:
        return f"device-{number}-{which}-{self._rng.getrandbits(48):012x}"

    def _account(self, number: int) -> tuple[str, dict[str, Any]]:
        name = self._rng.choice(["Ada", "Grace", "Edsger", "Barbara", "Alan", "Margaret"])
        return f"user-{number}", {"email": f"shopper{number}@example.com", "first_name": name, "plan": "basic"}
