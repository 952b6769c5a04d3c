"""Headrace destination: Google Ads conversions."""
