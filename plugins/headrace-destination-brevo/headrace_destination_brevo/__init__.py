"""Headrace destination: Brevo."""
