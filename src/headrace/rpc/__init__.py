"""gRPC as all services speak it: server, channel, credentials, errors, names, pages, repeated calls."""
