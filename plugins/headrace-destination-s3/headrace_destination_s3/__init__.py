"""Headrace destination: S3-compatible files."""
