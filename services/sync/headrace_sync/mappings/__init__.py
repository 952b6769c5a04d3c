"""From profiles and events to what connectors take, and how well a mapping fits real people."""
