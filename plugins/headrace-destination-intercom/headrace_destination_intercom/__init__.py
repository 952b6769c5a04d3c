"""Headrace destination: Intercom."""
