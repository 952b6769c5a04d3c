"""Previews and rebuilds: what rules make of all stored events, and putting that in place.

`shadow` resolves the recorded events anew in memory and compares (pure), `comparison` says what came of it (pure),
`store` keeps previews and rebuilds, `runner` works on them.
"""
