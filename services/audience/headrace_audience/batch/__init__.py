"""The batch evaluator: definitions as SQL over the archive."""
