"""Computed traits: what a definition says, and which value follows from events. Pure.

Identity keeps values of people, audiences test them; both start from this package.
"""
