"""Headrace destination: BigQuery."""
