"""Reading people: by identifier, by what they are, as they were, and as they change."""
