"""Headrace destination: Webhook."""
