"""Alerts: what is told to whom when a sync needs somebody, and how it gets there."""
