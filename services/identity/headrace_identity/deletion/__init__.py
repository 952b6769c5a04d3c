"""Deletion and suppression of people, end to end.

`tombstones` says which events are refused, `runner` carries a deletion out step by step, `receipt` signs what was done.
"""
