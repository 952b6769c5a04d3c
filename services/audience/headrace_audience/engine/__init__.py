"""The incremental engine: exact memberships, kept in columns, event by event. No I/O."""
