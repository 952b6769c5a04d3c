"""Deliveries of events: stored, taken, sent in batches, retried, replayed."""
