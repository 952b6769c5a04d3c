"""List syncs: what should be on a vendor's list, what may be there, and the passes that send the difference."""
