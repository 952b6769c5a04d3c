"""Headrace destination: LinkedIn matched audiences."""
