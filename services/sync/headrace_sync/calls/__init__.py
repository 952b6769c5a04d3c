"""The gRPC services of sync: messages to calls of the handlers and back, and what the handlers do."""
