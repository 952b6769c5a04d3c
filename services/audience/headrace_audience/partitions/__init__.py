"""The partitions of a replica: who holds them, where they stand, and which time it is in them."""
