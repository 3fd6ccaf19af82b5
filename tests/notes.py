"""Progress that remembers what the user was told."""

from __future__ import annotations

from monox_kit.progress import Silent


class Notes(Silent):
    """Draws nothing, and keeps every note in `notes`."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)
