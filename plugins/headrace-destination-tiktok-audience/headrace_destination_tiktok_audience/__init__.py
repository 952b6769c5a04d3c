"""Headrace destination: TikTok audiences."""
