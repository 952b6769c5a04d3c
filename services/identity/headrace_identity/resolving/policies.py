"""What logins and logouts mean on a device that several people use. Pure functions; the resolver calls them first.

The words are mParticle's. A *login* is an event with an identifier that names no device, a *logout* is a track event
of a certain name that has only identifiers of devices. A profile is *anonymous* while it holds nothing but devices.

- conversion: a login gives the anonymous profile of the device its name, as without a policy. A logout takes the
  device from a profile that is not anonymous and gives it to a new one.
- link: a login never takes the device from another profile: it finds or makes a profile of its own, which remembers
  from which profile it stems. A logout gives the device to a new profile in any case.
- isolation: a login never takes the device from another profile, and remembers nothing. A logout goes back to the
  anonymous profile of the device; if a named one has the device, a new one gets it.

Which profile has the device may thus change: everything else that profiles hold only grows. See `Changes.relied`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.domain.event_names import fold
from headrace_identity.resolving.graph import Profile
from headrace_identity.resolving.rules import Identifier, Policy, Rules

_TRACK = EventKind.EVENT_KIND_TRACK

_fold = lru_cache(maxsize=4_096)(fold)

Find = Callable[[Identifier], Profile | None]
"""Who holds an identifier."""


@dataclass(slots=True)
class Effect:
    """What a policy makes of an event.

    Attributes:
        demoted: Devices that do not count for this event, because another profile has them.
        released: Devices that are taken from the profile that has them, by whose id it is.
        stems_from: The profile that has the device, for a profile that the event may make; "" for none.
        watched: Ids of profiles on which this depends: whoever changes them concurrently must conflict.
    """

    demoted: list[Identifier] = field(default_factory=list)
    released: dict[Identifier, str] = field(default_factory=dict)
    stems_from: str = ""
    watched: set[str] = field(default_factory=set)


def policy_of(event: Event, identifiers: Iterable[Identifier], rules: Rules) -> Policy | None:
    """The policy that has something to say about an event with these identifiers, else None."""
    policy = rules.policy(event.source_id)
    if policy is None:
        return None
    has_device = has_login = False
    for namespace, _ in identifiers:
        if namespace in policy.devices:
            has_device = True
        else:
            has_login = True
    if not has_device:
        return None
    concerned = policy.policy != "conversion" if has_login else is_logout(event, policy)
    return policy if concerned else None


def is_logout(event: Event, policy: Policy) -> bool:
    """Whether the name of an event says that somebody logged out."""
    return event.kind == _TRACK and any(_fold(name) == _fold(event.name) for name in policy.logout_events)


def effect(policy: Policy, identifiers: Sequence[Identifier], find: Find) -> Effect:
    """What a policy makes of an event that it concerns.

    Args:
        policy: From `policy_of`.
        identifiers: The event's identifiers, the highest priority first.
        find: Who holds an identifier; profiles are complete when the event is a logout.
    """
    result = Effect()
    devices = [i for i in identifiers if i[0] in policy.devices]
    logins = [i for i in identifiers if i[0] not in policy.devices]
    holders = {device: holder for device in devices if (holder := find(device)) is not None}
    if logins:
        own = {root.id for login in logins if (root := find(login)) is not None}
        result.demoted = [device for device, holder in holders.items() if holder.id not in own]
        if result.demoted:
            # If the two become one at the same time, the device is the person's own.
            result.watched |= own
            if policy.policy == "link":
                result.stems_from = holders[result.demoted[0]].id
                result.watched.add(result.stems_from)
        return result
    for device, holder in holders.items():
        if policy.policy == "link" or not is_anonymous(holder, policy):
            result.released[device] = holder.id
        else:
            result.watched.add(holder.id)  # somebody may log in at the same time
    return result


def is_anonymous(profile: Profile, policy: Policy) -> bool:
    """Whether a profile holds nothing but devices."""
    return all(namespace in policy.devices for namespace, _ in profile.identifiers)
