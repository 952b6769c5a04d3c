"""Headrace destination: HubSpot."""
