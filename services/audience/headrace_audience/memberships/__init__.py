"""Changes of memberships on their way into the store and onto the stream."""
