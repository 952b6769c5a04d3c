"""What can go wrong when parts are started on this machine; each message says what to do about it."""

from __future__ import annotations


class EmbeddedError(Exception):
    """A part could not be started or stopped; the text is one sentence for the person at the terminal."""


class WrongOptions(EmbeddedError):
    """What was asked for cannot be, on any machine."""


class BinaryNotFound(EmbeddedError):
    """No mongod or redis-server on this machine."""


class PortInUse(EmbeddedError):
    """Another process listens on a port that is needed."""


class StartFailed(EmbeddedError):
    """A process ended or did not answer in time while it was being started."""


class FolderInUse(EmbeddedError):
    """Another `headrace up` runs on the data folder."""
