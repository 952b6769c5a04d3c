"""Headrace destination: SQL databases."""
