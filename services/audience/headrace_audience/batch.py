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

Public functions (all take an open DuckDB connection that knows `events`; none of them writes)::

    evaluate(connection, definition, now_us, audiences={...}) -> list[str]      # profile ids of the members, sorted
    preview(connection, definition, now_us, audiences={...}, sample=20)         # -> Preview: size, profiles, sample
    outlook(connection, definition, now_us, audiences={...}, profiles=None)     # -> list[Outlook]: since, leaves_at
    condition_history(connection, key, now_us) -> pyarrow.Table                 # for Engine.fold_history(key, table)

`audiences` maps ids of referenced audiences to their Definition, or to the ids of their members (static audiences, or
whatever the store holds); one that is missing has no members. `now_us` of condition_history() must not be later than
the clock of the engine that folds it. The key PROFILES gives the ids of all profiles, for a partition that starts
without a snapshot: people of whom no condition knows anything are in "not" audiences too.
"""
