"""Headrace destination: Customer.io."""
