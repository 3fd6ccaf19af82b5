"""What a teacher said of a row, as a file holds it, becomes logits: every rule about it is here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from monox_kit.corpora.rows import MAX_LABELS, shown
from monox_kit.data import LabelSet, Logits
from monox_kit.errors import CorpusError
from monox_kit.importing.config import LABEL_SMOOTHING, ImportConfig
from monox_kit.problem import Floats, problem_of

Where: TypeAlias = Callable[[], str]

_Read: TypeAlias = tuple[Logits, int]  # logits, and votes that were left out

# How far the probabilities of a row may be from 1 together: files keep three digits and more.
_SUM_TOLERANCE = 1e-3
# How far the logit of a class that a row does not list stays below others, for each unit of their
# distance from 0 and one more. float16 keeps 11 bits of a logit: nearer ones become equal in a
# store of it, and of equal ones the first class is decided for, whatever the row lists.
_MARGIN = 2**-9
# Whole numbers above are not exact as float64.
_MOST_VOTES = 2**53


class Answer(NamedTuple):
    """A teacher's answer that can be stored.

    Attributes:
        logits: [C] float32.
        num_left_out: votes for no class, beside others.
        where: tells the row's place.
    """

    logits: Logits
    num_left_out: int
    where: Where


class AnswerReader:
    """Makes logits of the answers in one column; `Corpus` calls it with each row's."""

    def __init__(self, config: ImportConfig, labels: LabelSet, label_names: Sequence[str]) -> None:
        """Choose the rules.

        Args:
            config: of the import.
            labels: the classes in the order of the logits.
            label_names: what whole numbers stand for, from 0; none takes them as names.
        """
        self.column: str = getattr(config, config.answer_setting)
        self._labels, self._problem = labels, problem_of(labels)
        self._index = {name: index for index, name in enumerate(labels.names)}
        self._numbered = tuple(label_names)
        self._skips = config.on_unknown_label == "skip"
        self._smoothing = config.smoothing or LABEL_SMOOTHING
        self._missing_mass = config.missing_mass
        self._dtype = config.dtype
        self._read: Callable[[Any, Where], _Read] = getattr(self, f"_{config.kind}")
        self._is_text = config.kind == "label"

    def __call__(self, value: Any, where: Where) -> Answer | CorpusError:
        """The answer; where rows are skipped, what is wrong with it.

        Raises:
            CorpusError: it cannot be used, and rows are not skipped.
        """
        try:
            if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
                raise self._fault(where, "no answer")
            logits, num_left_out = self._read(self._parsed(value, where), where)
            with np.errstate(over="ignore"):  # found below
                stored = logits.astype(self._dtype)
            if not np.isfinite(stored).all():
                found = f"{logits[~np.isfinite(stored)][0]:g}"
                raise self._fault(where, f"a logit that {self._dtype} cannot hold", found)
            return Answer(logits, num_left_out, where)
        except CorpusError as error:
            if not self._skips:
                raise
            return error

    def _parsed(self, value: Any, where: Where) -> Any:
        """The value that a text of JSON stands for, as CSV and some programs write it."""
        is_json = isinstance(value, str) and value.lstrip()[:1] in ("[", "{")
        if isinstance(value, str) and not is_json and not self._is_text:
            raise self._fault(where, "text in place of numbers", shown(value))
        if not is_json or (self._is_text and value in self._index):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise self._fault(where, "text that is not JSON", shown(value)) from error

    def _label(self, value: Any, where: Where) -> _Read:
        """A hard label, or a list of them: all but the smoothing's share is theirs."""
        is_multi = self._labels.is_multi
        if isinstance(value, list) != is_multi:
            form = "a list of labels" if is_multi else "one label"
            raise self._fault(where, f"another form than {form}", shown(str(value)))
        target = np.zeros(len(self._labels))
        target[[self._class(name, where) for name in (value if is_multi else [value])]] = 1
        spread = 1 / 2 if is_multi else 1 / len(self._labels)
        return self._of_probabilities((1 - self._smoothing) * target + self._smoothing * spread)

    def _probabilities(self, value: Any, where: Where) -> _Read:
        found = self._numbers(value, where)
        if (found < 0).any() or (found > 1).any():
            wrong = found[(found < 0) | (found > 1)][0]
            raise self._fault(where, "a probability outside of 0 to 1", f"{wrong:g}")
        if not self._labels.is_multi and abs(found.sum() - 1) > _SUM_TOLERANCE:
            raise self._fault(where, "probabilities whose sum is not 1", f"{found.sum():g}")
        return self._of_probabilities(found)

    def _logits(self, value: Any, where: Where) -> _Read:
        with np.errstate(over="ignore"):  # found by the caller
            return self._numbers(value, where).astype(np.float32), 0

    def _votes(self, value: Any, where: Where) -> _Read:
        """Shares of the votes that are for a class; in a multi-label store each is a list."""
        num_left_out, counts, total = 0, np.zeros(len(self._labels)), 0
        for vote, count in self._ballots(value, where):
            try:
                classes = self._voted(vote, where)
            except CorpusError:
                if not self._skips:
                    raise
                num_left_out += count
                continue
            counts[classes] += count
            total += count
        if not total:
            raise self._fault(where, "no vote for a class", shown(str(value)))
        return self._of_probabilities(counts / total, num_left_out)

    def _ballots(self, value: Any, where: Where) -> list[tuple[Any, int]]:
        """Votes with how often each was given."""
        if isinstance(value, Mapping) and not self._labels.is_multi:
            counted = [(vote, count) for vote, count in value.items() if count is not None]
            for _, count in counted:
                number = _number(count)
                if not (number.is_integer() and 0 <= number <= _MOST_VOTES):
                    raise self._fault(where, "a count of votes that is none", shown(str(count)))
            return [(vote, int(count)) for vote, count in counted if count > 0]
        if not isinstance(value, list):
            raise self._fault(where, "another form than a list of votes", shown(str(value)))
        return [(vote, 1) for vote in value]

    def _voted(self, vote: Any, where: Where) -> list[int]:
        """The classes of one vote."""
        if self._labels.is_multi:
            if not isinstance(vote, list):
                raise self._fault(where, "a vote that is no list of labels", shown(str(vote)))
            return sorted({self._class(name, where) for name in vote})
        return [self._class(vote, where)]

    def _logprobs(self, value: Any, where: Where) -> _Read:
        """Log-probabilities of some classes; the others share what is missing."""
        listed: dict[int, float] = {}
        total, tokens = 0.0, self._tokens(value, where)
        for token, given in tokens:
            number = _number(given)
            if math.isnan(number) or number > _SUM_TOLERANCE:
                raise self._fault(where, "a log-probability above 0, or none", shown(str(given)))
            total += math.exp(min(number, 0.0))
            index = self._index.get(token)
            if index is not None:  # " games" and "games" are tokens of one class
                listed[index] = float(np.logaddexp(listed.get(index, -np.inf), number))
        best = max(tokens, key=lambda each: _number(each[1]), default=("", 0.0))[0]
        if best not in self._index:
            self._class(best, where)
        if total > 1 + _SUM_TOLERANCE:
            raise self._fault(where, "log-probabilities whose sum exceeds 1", f"{total:g}")
        found = self._with_missing(listed, total, where)
        if not found.any():
            raise self._fault(where, "log-probabilities of nothing", shown(str(value)))
        return self._of_probabilities(found)

    def _tokens(self, value: Any, where: Where) -> list[tuple[str, Any]]:
        """Names with log-probabilities, of an object or of a service's list of tokens."""
        if isinstance(value, Mapping):
            for name, number in value.items():
                if number is not None:  # a field of Arrow's structs that the row has not
                    self._class(name, where)
            return [(name, number) for name, number in value.items() if number is not None]
        if not isinstance(value, list) or len(value) > MAX_LABELS:
            raise self._fault(where, "another form than log-probabilities", shown(str(value)))
        tokens = []
        for each in value:
            if not isinstance(each, Mapping) or not isinstance(each.get("token"), str):
                raise self._fault(where, "an entry without token and logprob", shown(str(each)))
            tokens.append((each["token"].strip(), each.get("logprob")))
        return tokens

    def _with_missing(self, listed: Mapping[int, float], total: float, where: Where) -> Floats:
        """[C] probabilities, not scaled to 1, with those of classes that are not listed.

        Raises:
            CorpusError: `missing_mass` makes one of these as probable as the best that is listed.
        """
        found = np.zeros(len(self._labels))
        found[list(listed)] = np.exp(list(listed.values()))
        num_missing = len(found) - len(listed)
        if num_missing:
            mass = max(1 - total, 0.0) if self._missing_mass is None else self._missing_mass
            each = mass / num_missing
            least, best = found[list(listed)].min(), found[list(listed)].max()
            if self._missing_mass is None:  # top k: what is not listed is less probable
                each = min(each, _below(least, best))
            else:
                scale = (1 - mass) / max(found.sum(), np.finfo(float).tiny)
                found *= scale
                if each > _below(best * scale, best * scale):
                    raise self._fault(
                        where,
                        "a class that is not listed would be as probable as the best that is",
                        f"{each:.3g} and {best * scale:.3g}",
                        f"Give a lower `missing_mass` than {mass:g}",
                    )
            found[[index for index in range(len(found)) if index not in listed]] = each
        return found

    def _of_probabilities(self, probabilities: Floats, num_left_out: int = 0) -> _Read:
        return self._problem.logits_of(probabilities[None])[0], num_left_out

    def _numbers(self, value: Any, where: Where) -> Floats:
        """[C] a finite number for each class."""
        if isinstance(value, list) and value and all(type(each) is tuple for each in value):
            value = dict(value)  # as Arrow gives a map
        if isinstance(value, Mapping):
            for name in value:
                self._class(name, where)
            for name in self._labels.names:
                if value.get(name) is None:
                    raise self._fault(where, "no number for a class", f"{name!a}")
            value = [value[name] for name in self._labels.names]
        if not isinstance(value, list):
            raise self._fault(where, "another form than numbers of classes", shown(str(value)))
        if len(value) != len(self._labels):
            found = f"{len(value)} where there are {len(self._labels)} classes"
            raise self._fault(where, "another number of values than classes", found)
        numbers = np.array([_number(each) for each in value])
        for each, number in zip(value, numbers):
            if not math.isfinite(number):
                raise self._fault(where, "a value that is no finite number", shown(str(each)))
        return numbers

    def _class(self, name: Any, where: Where) -> int:
        """The index of a class.

        Raises:
            CorpusError: there is none of the name.
        """
        if isinstance(name, float) and name.is_integer():  # pandas, where a column has gaps
            name = int(name)
        if isinstance(name, Integral):
            number = int(name)  # true and false are 1 and 0, as in label columns
            names = self._numbered
            name = names[number] if 0 <= number < len(names) else str(number)
        if not isinstance(name, str):
            raise self._fault(where, "an answer that is no name of a class", shown(str(name)))
        index = self._index.get(name)
        return self._labels.index(name, where()) if index is None else index

    def _fault(
        self, where: Where, kind: str, found: str = "", step: str = "Correct the answer"
    ) -> CorpusError:
        """The error of a row whose answer cannot be used."""
        return CorpusError.of_row(
            where(),
            f"column {self.column!r}: {kind}{': ' if found else ''}{found}",
            f"{step}, or give `on_unknown_label` skip.",
            kind=f"{kind} in column {self.column!r}",
            found=found,
        )


def _below(least: float, best: float) -> float:
    """The most of a class that stays less probable than `least` in float16; `best` has logit 0."""
    if not least:
        return 0.0
    return float(least * np.exp(-_MARGIN * (1 + np.log(best) - np.log(least))))


def _number(value: Any) -> float:
    """A number as float64; NaN for what is none, or is beyond it."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return math.nan
