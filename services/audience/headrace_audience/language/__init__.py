"""Audience definitions: the conditions, and how they are read and written."""
