"""Headrace destination: Google Sheets."""
