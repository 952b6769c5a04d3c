"""Why identifiers are one person or two, and what makes up a profile."""
