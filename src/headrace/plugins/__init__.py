"""Plugins: found, run in processes of their own, asked for requests, and kept from harming anyone."""

from headrace.plugins.errors import PluginConfigError, PluginError, PluginErrorKind, PluginFailure
from headrace.plugins.host import ConnectorInstance, PluginHost
from headrace.plugins.masking import MASK, mask, mask_settings, merge_masked, secrets_of
from headrace.plugins.options import Options
from headrace.plugins.process import Limits

__all__ = [
    "MASK",
    "ConnectorInstance",
    "Limits",
    "Options",
    "PluginConfigError",
    "PluginError",
    "PluginErrorKind",
    "PluginFailure",
    "PluginHost",
    "mask",
    "mask_settings",
    "merge_masked",
    "secrets_of",
]
