"""Deletion of a person: what is removed here, and what destinations are asked to remove."""
