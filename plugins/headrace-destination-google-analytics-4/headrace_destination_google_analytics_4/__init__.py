"""Headrace destination: Google Analytics 4."""
