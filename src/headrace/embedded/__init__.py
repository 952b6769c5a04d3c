"""Real stores as child processes, and all services on one machine, for laptops and tests."""
