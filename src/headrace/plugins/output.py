"""What a plugin writes to its standard error: read so that it never blocks, masked, and kept in memory only.

It may hold anything, personal data included, so it never goes into logs or error texts. `PluginHost.output` shows the
last lines to whoever develops the plugin on their own machine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from headrace.plugins.masking import Masker

_KEPT_LINES = 200
_LONGEST_LINE = 1_000
_LONGEST_RAW_LINE = 16_384


class Output:
    """The last lines of a plugin's output."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._secrets: set[str] = set()
        self._masker: Masker | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.line_count = 0

    def hide(self, secrets: Iterable[str]) -> None:
        """Mask these too from now on: also when their instance is gone, as what it printed may still be on its way."""
        before = len(self._secrets)
        self._secrets.update(secrets)
        if len(self._secrets) != before:
            self._masker = None

    def lines(self) -> list[str]:
        """The last lines, oldest first, masked."""
        masker = self._current()
        return [masker.mask(line) for line in self._lines]

    def _current(self) -> Masker:
        """The masker of all secrets, made when it is needed: most plugins print nothing."""
        if self._masker is None:
            self._masker = Masker(self._secrets)
        return self._masker

    async def follow(self, stream: asyncio.StreamReader) -> None:
        """Read a stream to its end."""
        line = bytearray()
        cut = False
        while chunk := await stream.read(65_536):
            *ended, rest = chunk.split(b"\n")
            for part in ended:
                cut = _append(line, part) or cut
                self._keep(line, cut=cut)
                line.clear()
                cut = False
            cut = _append(line, rest) or cut
        if line:
            self._keep(line, cut=cut)

    def _keep(self, line: bytearray, *, cut: bool) -> None:
        masker = self._current()
        masked = masker.mask(bytes(line))
        if cut:  # the end of what was read may be the beginning of a secret
            masked = masked[: max(len(masked) - masker.longest, 0)]
        text = masked.decode("utf-8", "replace")
        self._lines.append("".join(mark if mark.isprintable() else "�" for mark in text[:_LONGEST_LINE]))
        self.line_count += 1


def _append(line: bytearray, part: bytes) -> bool:
    """Append to a line up to its longest length; True when something was left out."""
    free = _LONGEST_RAW_LINE - len(line)
    line += part[:free]
    return len(part) > free
