"""What authors of connectors work with: a new connector from a template, and a loop that shows what it does."""
