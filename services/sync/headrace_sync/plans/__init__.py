"""Dry runs and plans: what a sync would do, shown beforehand, approved, and limited."""
