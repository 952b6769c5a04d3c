"""Headrace destination: Meta Custom Audiences."""
