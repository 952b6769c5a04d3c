"""Headrace destination: Meta Conversions API."""
