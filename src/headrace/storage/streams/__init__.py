"""Redis Streams: names of the streams, sending batches, reading by consumer group or by position."""
