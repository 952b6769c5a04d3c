"""People as messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1.event_pb2 import Identifier
from headrace.api.identity.v1 import profile_pb2
from headrace.domain.consent import ConsentValue
from headrace.rpc import names
from headrace_identity.groups.statements import Membership
from headrace_identity.people.profiles import Person
from headrace_identity.resolving.graph import TraitValue

_GRANTED = profile_pb2.ConsentStatus.CONSENT_STATUS_GRANTED
_DENIED = profile_pb2.ConsentStatus.CONSENT_STATUS_DENIED


def profile_message(workspace_id: str, person: Person) -> profile_pb2.Profile:
    """A person as a message."""
    profile = person.profile
    return profile_pb2.Profile(
        name=names.format(names.PROFILE, workspace_id, profile.id),
        identifiers=[Identifier(namespace=n, value=v) for n, v in sorted(profile.identifiers)],
        traits=[trait_message(name, trait) for name, trait in person.traits.items()],
        parts=profile.parts,
        create_time=time_of_sequence(profile.created),
        merge_count=profile.merges,
        consents=[consent_message(purpose, value) for purpose, value in person.consents.items()],
        groups=[group_link_message(group_id, membership) for group_id, membership in person.groups.items()],
        computed_traits=person.computed,
    )


def trait_message(name: str, trait: TraitValue) -> profile_pb2.Trait:
    """A trait as a message."""
    return profile_pb2.Trait(
        name=name,
        value=trait.value,
        source_id=trait.source_id,
        message_id=trait.message_id,
        timestamp_us=trait.time_us,
    )


def group_link_message(group_id: str, membership: Membership) -> profile_pb2.GroupLink:
    """A person's membership of a group as a message."""
    return profile_pb2.GroupLink(
        group_id=group_id,
        source_id=membership.source_id,
        message_id=membership.message_id,
        timestamp_us=membership.time_us,
    )


def time_of_sequence(sequence: int) -> Timestamp:
    """When an event was resolved: its sequence is the clock of that moment (ADR 6)."""
    return Timestamp(seconds=sequence // 1_000_000, nanos=sequence % 1_000_000 * 1_000)


def consent_message(purpose: str, value: ConsentValue) -> profile_pb2.Consent:
    """What a person said about a purpose, as a message."""
    return profile_pb2.Consent(
        purpose=purpose,
        status=_GRANTED if value.granted else _DENIED,
        source_id=value.source_id,
        message_id=value.message_id,
        timestamp_us=value.time_us,
    )
