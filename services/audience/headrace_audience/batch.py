"""The batch evaluator: audience definitions as SQL over the archive, run by DuckDB.

It reads one relation named `events`, a view that the archive provides on a DuckDB connection:

=============  =====================  ================================================================================
column         type                   meaning
=============  =====================  ================================================================================
profile        VARCHAR                the profile over all merges (the survivor), never empty
timestamp_us   BIGINT                 event time
message_id     VARCHAR                duplicates are harmless, also in several files
kind           VARCHAR                "track", "page", "screen", "identify", "group", "alias"
name           VARCHAR                name of a track event
properties     VARCHAR (JSON object)  or NULL or empty
traits         VARCHAR (JSON object)  traits of the *person* (headrace_audience.traits.person_traits), or NULL
namespaces     VARCHAR[]              namespaces of the identifiers with which the event was resolved (decision)
=============  =====================  ================================================================================

The view holds one workspace only. Other columns are not read.
"""
