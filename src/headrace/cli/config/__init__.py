"""Configuration as code: YAML files, what they may hold, and what has to change so that a platform is as they say."""
