"""Reassignment: the events of people concerned are resolved anew, after an input of resolving was changed (ADR 10).

Undoing a merge, linking by hand, rebuilding and deleting are all this one thing. Start reading at `reassigner`.
"""
