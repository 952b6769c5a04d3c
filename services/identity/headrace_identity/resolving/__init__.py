"""How events become people: pure functions, run by the service, the rebuild and the offline replay alike.

Start reading at `resolver`.
"""
