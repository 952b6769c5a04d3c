"""The batch evaluator on many machines: the same statements, on shards of people."""
