"""The connector protocol: what the plugin host and a plugin's process say to each other, and the process itself."""
