"""MongoDB: the connection and the event log that several services share."""
