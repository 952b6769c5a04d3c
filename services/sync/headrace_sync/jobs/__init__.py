"""Jobs at vendors: kept in the store from the vendor's answer to their end, and asked for meanwhile."""
