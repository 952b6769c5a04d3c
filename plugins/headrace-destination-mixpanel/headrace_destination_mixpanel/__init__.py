"""Headrace destination: Mixpanel."""
