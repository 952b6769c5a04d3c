"""The vocabulary of Headrace: events, identifiers, times, definitions. Pure functions, no I/O."""
