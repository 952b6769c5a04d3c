"""The stores: MongoDB under mongo/, Redis Streams under streams/."""
