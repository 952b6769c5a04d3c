"""What becomes of memberships when people are merged, taken apart, or deleted."""
