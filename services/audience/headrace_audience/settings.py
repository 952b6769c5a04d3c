"""Settings of the audience service, beside those that all services share."""

from __future__ import annotations

from pydantic import Field

from headrace.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the audience service reads from HEADRACE_* variables."""

    archive_dir: str = Field(
        ".headrace/archive", description="Folder of the Parquet archive, or a URL such as s3://bucket/prefix."
    )
    archive_interval_seconds: float = Field(15.0, gt=0, description="How often new events are written to the archive.")
    archive_settle_seconds: float = Field(
        3.0, ge=0, description="Age at which an event is written to the archive; open transactions are shorter."
    )
    archive_margin_seconds: float = Field(
        60.0, ge=0, description="How far behind its watermark the archive looks for events that were committed late."
    )
    archive_compact_files: int = Field(8, ge=2, description="Files of one day from which on they are merged.")
    audience_lease_seconds: float = Field(
        6.0, gt=0, description="After how long without a sign of life a partition's owner is replaced."
    )
    audience_sweep_seconds: float = Field(0.25, gt=0, description="How often the passing of time alone is evaluated.")
    audience_confirm_share: float = Field(
        0.2,
        ge=0,
        description="A new definition of an active audience moving a larger share of its members must be confirmed.",
    )
    audience_confirm_members: int = Field(
        100, ge=0, description="A new definition that moves fewer people than that is never held to be confirmed."
    )
    audience_groups_seconds: float = Field(
        10.0,
        gt=0,
        description="How often, at most, a continuous audience of groups is computed anew; slow ones less often.",
    )
    audience_snapshot_seconds: float = Field(
        60.0, gt=0, description="How often the state of a changed partition is stored."
    )
    audience_batch_entries: int = Field(64, ge=1, description="Stream entries per partition in one micro-batch.")
    audience_margin_seconds: float = Field(
        180.0,
        ge=0,
        description="How far back the log is folded again when the stream was lost or does not reach back.",
    )
    audience_fill_events: int = Field(5_000, ge=1, description="Events of history that are folded at a time.")
    archive_grace_seconds: float = Field(
        3600.0, gt=0, description="How long files stay after they were merged, longer than any query takes."
    )
    archive_query_threads: int = Field(2, ge=1, description="Threads of one query over the archive.")
    archive_query_memory_mb: int = Field(1024, ge=64, description="Memory of one query over the archive, in MiB.")
    audience_computed_seconds: float = Field(
        3.0, gt=0, description="How often audiences look for other definitions of the computed traits that they name."
    )
    audience_check_seconds: float = Field(
        600.0, gt=0, description="How often, on average, an active audience is compared with the batch evaluator."
    )
    audience_repair: bool = Field(
        True, description="Whether what the comparison with the batch evaluator finds is repaired by itself."
    )
