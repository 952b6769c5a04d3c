"""Headrace destination: TikTok Events API."""
