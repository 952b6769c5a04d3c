"""How new audiences, new versions, and those computed at intervals come to their members."""
