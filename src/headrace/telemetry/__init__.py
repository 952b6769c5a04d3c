"""Traces, metrics and logs of every service: set-up in one call, no personal data in any of them."""

from headrace.telemetry.setup import Telemetry, setup

__all__ = ["Telemetry", "setup"]
