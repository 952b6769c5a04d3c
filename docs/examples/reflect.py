"""Calls ProfileService by gRPC reflection alone: no generated files, nothing of Headrace imported.

    python docs/examples/reflect.py ready.json [NAMESPACE VALUE]

Needs grpcio, grpcio-reflection and protobuf. The ready file is what `headrace up --ready-file` writes.
"""

import json
import sys
from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "headrace.api.identity.v1.ProfileService"


def main(ready_file: str, namespace: str = "email", value: str = "ada@example.com") -> int:
    """Look a profile up and print it."""
    ready = json.loads(Path(ready_file).read_text(encoding="utf-8"))
    with grpc.insecure_channel(ready["grpc"]["identity"]) as channel:
        # The server describes its own services and messages.
        service = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(SERVICE)
        method = service.FindMethodByName("LookupProfile")
        request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        call = channel.unary_unary(
            f"/{SERVICE}/{method.name}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        request = request_class(parent=f"workspaces/{ready['workspace']}")
        request.identifier.namespace, request.identifier.value = namespace, value
        try:
            response = call(request, metadata=(("authorization", f"Bearer {ready['api_token']}"),), timeout=10)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    print(response.profile.name)
    for identifier in response.profile.identifiers:
        print(f"  {identifier.namespace}: {identifier.value}")
    for trait in response.profile.traits:
        print(f"  {trait.name} = {trait.value.decode()}")  # the value is JSON
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in {2, 4}:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
