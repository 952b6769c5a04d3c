"""Requests over gRPC: what callers ask for, and what they are told."""
