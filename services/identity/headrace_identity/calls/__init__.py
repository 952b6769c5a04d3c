"""The gRPC services of identity: messages to calls and back. `servicer` puts ProfileService together."""
