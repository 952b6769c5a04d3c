"""Headrace destination: Kafka."""
