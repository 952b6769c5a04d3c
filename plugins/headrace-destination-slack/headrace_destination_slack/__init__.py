"""Headrace destination: Slack."""
