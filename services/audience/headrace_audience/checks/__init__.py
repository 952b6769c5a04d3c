"""Compares what is stored with the batch evaluator, and has repaired what differs."""
