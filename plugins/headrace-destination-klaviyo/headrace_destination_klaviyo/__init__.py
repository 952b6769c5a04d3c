"""Headrace destination: Klaviyo."""
