"""Evaluating and explaining definitions without a running platform, and the reference evaluator."""
