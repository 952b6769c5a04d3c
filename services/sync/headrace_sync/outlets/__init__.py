"""The way out to vendors: requests, credentials, rates, breaker, and one verdict per item."""
