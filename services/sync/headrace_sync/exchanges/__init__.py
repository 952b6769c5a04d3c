"""Requests and vendors' answers that are kept for the delivery log, without secrets and personal data."""
