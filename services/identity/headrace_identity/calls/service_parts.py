"""Servicers that are put together from parts, so that a large service is no large class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def add_parts(servicer: object, service: Any, parts: Iterable[object]) -> None:
    """Give a servicer the methods of its parts.

    Args:
        servicer: The servicer; a method that no part has stays as it is there.
        service: Descriptor of the gRPC service.
        parts: Objects with some methods of the service each, named like them.

    Raises:
        ValueError: Two parts have the same method.
    """
    methods = {method.name for method in service.methods}
    served: set[str] = set()
    for part in parts:
        for name in methods & set(dir(part)):
            if name in served:
                raise ValueError(f"{name} is served by two parts")
            served.add(name)
            setattr(servicer, name, getattr(part, name))
