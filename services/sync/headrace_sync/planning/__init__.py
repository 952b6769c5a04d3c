"""From the streams and the log to deliveries: what becomes of each event, and how nothing is missed."""
