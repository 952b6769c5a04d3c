"""The archive: the event log as columns, in Parquet files by day (docs/reference/archive.md).

``layout`` says what a file looks like and where it lies, ``registry`` which files are valid, ``writer`` makes them from
the log, ``compactor`` merges small ones and removes what is not needed any more, ``rewriter`` takes rows out and puts
others in when events were assigned anew or people are erased (``moved`` says which), ``reader`` opens all of a
workspace's events, the newest from the log, as one relation for DuckDB.
"""
