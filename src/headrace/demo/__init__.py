"""The demo: a simulated shop that knows the right answers, a sandbox vendor, and the comparison with the platform."""
