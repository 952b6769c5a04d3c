"""Whether everything is accounted for: what should have passed a sync against what became of it."""
