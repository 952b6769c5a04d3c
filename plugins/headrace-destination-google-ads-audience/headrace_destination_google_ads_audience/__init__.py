"""Headrace destination: Google Ads audiences."""
