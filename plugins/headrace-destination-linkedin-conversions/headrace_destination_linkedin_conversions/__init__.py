"""Headrace destination: LinkedIn Conversions API."""
