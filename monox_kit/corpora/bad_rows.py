"""The bad rows of one pass, collected by kind: a user corrects a file once, not row by row."""

from __future__ import annotations

from collections.abc import Sequence

from monox_kit.errors import CorpusError, CorpusUnreadable

# Rows that a message shows, over all kinds.
_MOST_SHOWN = 20
# Rows of them with one value, where a kind has several values.
_MOST_OF_VALUE = 3
# Bad rows after which a pass ends, and rows after the first of them: what is wrong with a billion
# rows is seen in the first million.
_MOST_BAD = 10_000
_MOST_ROWS = 1_000_000


class BadRows:
    """Collects the bad rows of a pass, and raises one error for all of them.

    Attributes:
        count: the bad rows so far.
    """

    def __init__(self) -> None:
        self._by_kind: dict[str, list[CorpusError]] = {}
        self.count = 0
        self._rows_since = 0
        self._has_ended = False

    def add(self, error: CorpusError) -> None:
        """Remember one more, or end the pass where there are too many.

        Raises:
            CorpusError: there are.
        """
        self._by_kind.setdefault(error.kind, []).append(error)
        self.count += 1
        if self.count >= _MOST_BAD:
            self._has_ended = True
            raise self._error("; reading ended here")

    def pass_row(self) -> None:
        """Count a row that follows a bad one.

        Raises:
            CorpusError: so many have followed the first that reading ends.
        """
        self._rows_since += 1
        if self._rows_since >= _MOST_ROWS:
            self._has_ended = True
            raise self._error(f"; reading ended {_MOST_ROWS:,} rows behind the first of them")

    def end(self, error: CorpusError | None = None) -> None:
        """Raise what was found.

        Args:
            error: what ended the pass before the end of the input; None where nothing did.

        Raises:
            CorpusError: a row was bad, or `error`.
        """
        is_all = self._has_ended or not self.count or isinstance(error, CorpusUnreadable)
        if error is not None and is_all:
            raise error
        if error is not None:
            raise self._error(f"; then reading ended: {error}") from error
        if self.count:
            raise self._error("")

    def _error(self, ending: str) -> CorpusError:
        if self.count == 1 and not ending:
            return next(iter(self._by_kind.values()))[0]
        # Of each kind its share, and at least one.
        most = max(1, _MOST_SHOWN // len(self._by_kind))
        parts = []
        for kind, errors in self._by_kind.items():
            share = max(most, _MOST_SHOWN - (len(self._by_kind) - 1) * most)
            parts.append(f"{kind} ({len(errors):,}): {_places(errors, share)}")
        return CorpusError(
            f"{self.count:,} row{'s' * (self.count > 1)} cannot be used. "
            f"{'. '.join(parts)}{ending.rstrip('.')}. {self._steps()}"
        )

    def _steps(self) -> str:
        """What to do: once what is of all rows of a kind, and of the others each by itself."""
        steps = [errors[0].step for errors in self._by_kind.values()]
        told = list(dict.fromkeys(filter(None, steps)))
        if not all(steps):
            told.append(f"Correct {'the others' if told else 'them'} or leave them out.")
        return " ".join(told)


def _places(errors: Sequence[CorpusError], most: int) -> str:
    """Where the rows of a kind are, those with the same value together, the most frequent first."""
    by_value: dict[str, list[str]] = {}
    for error in errors:
        by_value.setdefault(error.found, []).append(error.where)
    parts, left, num_shown = [], most, 0
    most_of_value = _MOST_OF_VALUE if len(by_value) > 1 else most
    for value, places in sorted(by_value.items(), key=lambda each: -len(each[1])):
        if not left:
            break
        is_group = bool(value) and len(places) > 1
        shown = places[: min(left, most_of_value if is_group else left)]
        left, num_shown = left - len(shown), num_shown + (len(places) if is_group else len(shown))
        if is_group:
            more = ", ..." if len(places) > len(shown) else ""
            parts.append(f"{value} ({len(places):,} rows: {', '.join(shown)}{more})")
        else:
            parts += [place + (f" ({value})" if value else "") for place in shown]
    return ", ".join(parts) + (", ..." if len(errors) > num_shown else "")
