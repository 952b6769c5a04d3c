"""How to run a platform on one machine. Imports next to nothing, so that the command line is read at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_DATA_DIR = Path(".headrace")
DEFAULT_PORT_BASE = 8080


@dataclass(frozen=True)
class Options:
    """How to run a platform."""

    data_dir: Path = DEFAULT_DATA_DIR
    port_base: int = DEFAULT_PORT_BASE
    ephemeral: bool = False
    """Data in a temporary folder that is removed at the end, instead of data_dir."""
    ready_file: Path | None = None
    """Where to write addresses and keys while the platform serves, besides ready.json in the data folder."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment for the services; HEADRACE_* variables in it are settings."""
