"""IdentityService in gRPC, put together from the objects that serve parts of it.

Each part is a class of its own file whose methods are named like those of the service: what explains, what links and
undoes, what changes rules and rebuilds. To serve one more method, write it in such a class and pass an object of it in
`bootstrap.py`.
"""

from __future__ import annotations

from headrace.api.identity.v1 import identity_service_pb2
from headrace.api.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer
from headrace_identity.calls.service_parts import add_parts


class IdentityServicer(IdentityServiceServicer):
    """Serves IdentityService; a method that no part has answers UNIMPLEMENTED."""

    def __init__(self, *parts: object) -> None:
        """Serve from objects with some methods of the service each."""
        add_parts(self, identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"], parts)
