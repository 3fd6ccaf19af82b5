"""How long stages report progress; the library renders nothing itself."""

from __future__ import annotations

from typing import Protocol, Self


class ProgressTask(Protocol):
    """One bar. Use as a context manager; leaving it ends the bar."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more units as done."""

    def detail(self, text: str) -> None:
        """Replace the short free text beside the bar (a loss, a padding fraction)."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Progress(Protocol):
    """Where a stage reports to. The command line draws it, the library's default is `Silent`."""

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> ProgressTask:
        """Open a bar of `total` units (None: unknown), of which an earlier run finished `done`."""

    def note(self, message: str) -> None:
        """Show one line that the user should see."""


class SilentTask:
    """A bar that draws nothing."""

    def advance(self, amount: int = 1) -> None:
        """Do nothing."""

    def detail(self, text: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class Silent:
    """Progress that draws nothing: the default of every library call."""

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> SilentTask:
        """Return a bar that draws nothing."""
        return SilentTask()

    def note(self, message: str) -> None:
        """Do nothing."""
