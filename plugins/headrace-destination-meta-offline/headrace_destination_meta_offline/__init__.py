"""Headrace destination: Meta offline conversions."""
