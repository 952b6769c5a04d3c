"""The type of the `make_settings` fixture."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from headrace.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


class MakeSettings(Protocol):
    """make_settings(SettingsClass, **overrides): an instance of a service's settings on the test's stores."""

    def __call__(self, settings_class: type[S], **overrides: Any) -> S: ...
