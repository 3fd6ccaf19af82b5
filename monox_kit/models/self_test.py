"""The self test of a bundle: golden texts, and what they were given where it was exported.

`golden.json` holds the texts with their ids, PyTorch's fp32 logits and the bundle's own, with the
runtime and the processor that computed them. Elsewhere the same texts must get the same ids, and
logits that differ by no more than arithmetic in another order explains. The fault that this tells:
int8 products saturate on processors without VNNI, silently.

Each text is a batch of its own: where activations are quantized as they come, company and padding
change what a text is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from monox_kit.data import Classifier, Logits
from monox_kit.durable import write_json
from monox_kit.errors import ModelError
from monox_kit.models.agreement import FP32_TOLERANCE
from monox_kit.models.batching import pad_batch
from monox_kit.models.files import find_file
from monox_kit.models.folder import FP32_FILE, ModelFolder
from monox_kit.models.golden import GOLDEN_PAIRS, GOLDEN_TEXTS
from monox_kit.models.golden_file import Answers, Golden, Machine
from monox_kit.models.record import GOLDEN_FILE, RECORD_FILE
from monox_kit.models.scoring import checked_logits
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.results import Result

# Of the precision's own distance from fp32. An int8 student's logits moved by 0.04 of it on a
# processor with other vector instructions, and by 1.03 where products saturate: benchmarks/LOG.md.
TOLERANCE_SHARE = 0.25
# Both lists of logits stay below a few MB, whatever the number of classes.
_MAX_LOGITS = 200_000
_TOO_OLD = (
    "it was exported before 0.2.0 or by another program, or has too many classes. Export the model "
    "again to have its answers recorded."
)
_MAX_SHOWN = 5
_SHOWN_CHARS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A golden text that is answered otherwise than it was recorded.

    Attributes:
        text: its beginning.
        label: the class whose logit differs most; None where the ids differ.
        recorded: that logit where the bundle was exported; of ids, the first five that differ.
        found: the same here.
    """

    text: str
    label: str | None
    recorded: float | tuple[int, ...]
    found: float | tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTest(Result):
    """What a bundle's self test found.

    Attributes:
        bundle: the folder.
        verdict: `passed`, `failed`, or `none` where there is nothing to compare with.
        num_texts: golden texts that were compared.
        num_different: those that were answered otherwise.
        largest: the largest difference of two logits; None where none were compared.
        tolerance: the most that is allowed; None where none were compared.
        differences: the worst of the different texts, the worst first.
        recorded: what computed the recorded logits; None where there are none.
        here: what computed those of this test; None where none were.
    """

    bundle: str
    verdict: Literal["passed", "failed", "none"]
    num_texts: int = 0
    num_different: int = 0
    largest: float | None = None
    tolerance: float | None = None
    differences: tuple[Difference, ...] = ()
    recorded: Machine | None = None
    here: Machine | None = None

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        if self.verdict == "none":
            return (
                f"{self.bundle}: there is no {GOLDEN_FILE}, so there is nothing to compare the "
                f"bundle's answers with: {_TOO_OLD}"
            )
        if self.verdict == "passed":
            return (
                f"{self.bundle}: {self.num_texts} golden texts get the ids and the logits that "
                f"were recorded at export; the largest difference is {self.largest:.1e}, and "
                f"{self.tolerance:.1e} is allowed."
            )
        worst = self.differences[0]
        start = f"{self.bundle}: {self.num_different} of {self.num_texts} golden texts get other "
        if worst.label is None:
            return (
                f"{start}ids than were recorded at export. Text {worst.text!r}: recorded "
                f"{worst.recorded}, found {worst.found}. The tokenizer's files, or the "
                "tokenizers package, are not those of the export: restore them, or export the "
                "model again."
            )
        return (
            f"{start}logits than were recorded at export. Text {worst.text!r}, class "
            f"{worst.label!r}: recorded {worst.recorded} by {self.recorded}; found "
            f"{worst.found} by {self.here}. At most {self.tolerance:.1e} is allowed. Export "
            "the model again on this machine, or use the runtime and the kind of processor that "
            "it was exported on."
        )

    def require_passed(self) -> None:
        """Raise the result unless the test passed.

        Raises:
            ModelError: it failed, or there was nothing to compare with.
        """
        if self.verdict != "passed":
            raise ModelError(self.sentence)


def write_golden(
    folder: Path,
    tokenizer: Tokenizer,
    reference: tuple[Classifier, Machine],
    own: tuple[Classifier, Machine],
    *,
    has_pairs: bool,
) -> None:
    """Write `golden.json` into a bundle under construction; not where there are too many classes.

    Args:
        folder: the bundle's.
        tokenizer: with the bundle's cut.
        reference: the model in PyTorch.
        own: the bundle's graph.
        has_pairs: whether the model was trained on text pairs.
    """
    num_labels = len(own[0].labels)
    texts = golden_inputs(has_pairs=has_pairs)[: _MAX_LOGITS // num_labels]
    if not texts:
        return
    golden = Golden(
        texts=texts,
        max_length=tokenizer.max_length,
        input_ids=ids_of(tokenizer, texts),
        reference=Answers.of(answer(reference[0], tokenizer, texts), reference[1]),
        recorded=Answers.of(answer(own[0], tokenizer, texts), own[1]),
    )
    write_json(folder / GOLDEN_FILE, golden.to_json())


def read_golden(folder: ModelFolder) -> Golden | None:
    """The golden texts of a folder whose files are those of its record; None where it has none.

    Raises:
        ModelError: a file is not as it was recorded, or `golden.json` is damaged.
    """
    require_recorded_files(folder)
    file = find_file(folder.path, GOLDEN_FILE)
    if file is None:
        return None
    golden = Golden.read(file, len(folder.labels))
    cut = None if folder.record is None else folder.record.max_length
    if golden.max_length != cut:
        raise ModelError(
            f"{file.shown}: expected texts of at most {cut} tokens as {RECORD_FILE} has it, found "
            f"{golden.max_length}. Restore the file, or export the model again."
        )
    return golden


def require_recorded_files(folder: ModelFolder) -> None:
    """Check that a folder's files are those that its record names; records of 0.1.0 name none.

    The fp32 graph of the guard may be absent: it is deleted to save space.

    Raises:
        ModelError: a file is missing, has other bytes, or is one more.
    """
    recorded = {} if folder.record is None else folder.record.files
    for name, wanted in recorded.items():
        file = find_file(folder.path, name)
        if file is None:
            if name in (FP32_FILE, f"{FP32_FILE}.data"):
                continue
            raise ModelError(
                f"{folder.path / name}: {RECORD_FILE} names this file, which is not there. Restore "
                "it, or export the model again."
            )
        if file.num_bytes != wanted.num_bytes:
            raise ModelError(
                f"{file.shown}: expected {wanted.num_bytes} bytes as {RECORD_FILE} has them, found "
                f"{file.num_bytes}. Restore the file, or export the model again."
            )
        if (found := file.digest()) != wanted.sha256:
            raise ModelError(
                f"{file.shown}: expected the SHA-256 {wanted.sha256[:12]} as {RECORD_FILE} has it, "
                f"found {found[:12]}. Restore the file, or export the model again."
            )
    for name in [*folder.files, *folder.weights] if recorded else ():
        if name not in recorded:
            raise ModelError(
                f"{folder.path / name}: {RECORD_FILE} does not name this file, which would change "
                "the model. Remove it, or export the model again."
            )


def golden_inputs(*, has_pairs: bool) -> tuple[tuple[str, ...], ...]:
    """Golden texts in the form that a model was trained on; as pairs, each with the next."""
    if has_pairs:
        return (*GOLDEN_PAIRS, *pairwise(GOLDEN_TEXTS))
    return tuple((text,) for text in GOLDEN_TEXTS)


def ids_of(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]]) -> tuple[tuple[int, ...], ...]:
    """The ids of each of N texts or pairs."""
    encoded = tokenizer.without_windows().encode(*_columns(texts))
    rows = np.split(encoded.input_ids, encoded.starts[1:])
    return tuple(tuple(row.tolist()) for row in rows)


def answer(
    classifier: Classifier, tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]]
) -> Logits:
    """[N, C] float32 logits of N texts or pairs, each a batch of its own.

    Raises:
        ModelError: the model breaks off, or its logits are not finite.
    """
    encoded = tokenizer.without_windows().encode(*_columns(texts))
    rows = [np.array([row], np.int64) for row in range(len(texts))]
    return np.concatenate(
        [
            checked_logits(classifier, pad_batch(encoded, row, tokenizer.padding), row)
            for row in rows
        ]
    )


def tolerance_of(golden: Golden) -> float:
    """The most that a logit may differ from the recorded one.

    What fp32 arithmetic in another order explains, or, of a reduced precision, a share of its own
    largest distance from fp32: on a processor that computes it otherwise, logits move by about
    that distance.
    """
    own, reference = (each.array.astype(np.float64) for each in (golden.recorded, golden.reference))
    rounding = FP32_TOLERANCE * max(1.0, float(np.abs(own).max()))
    return max(rounding, TOLERANCE_SHARE * float(np.abs(own - reference).max()))


def compare_ids(bundle: str, golden: Golden, tokenizer: Tokenizer) -> SelfTest | None:
    """The failed test of a tokenizer that gives other ids; None where they are equal."""
    found = ids_of(tokenizer.with_max_length(golden.max_length), golden.texts)
    different = [
        Difference(text=_shown(text), label=None, recorded=recorded, found=now)
        for text, (recorded, now) in zip(
            golden.texts,
            (_from_first(*rows) for rows in zip(golden.input_ids, found, strict=True)),
            strict=True,
        )
        if recorded != now
    ]
    if not different:
        return None
    return SelfTest(
        bundle=bundle,
        verdict="failed",
        num_texts=len(golden.texts),
        num_different=len(different),
        differences=tuple(different[:_MAX_SHOWN]),
        recorded=golden.recorded.machine,
    )


def compare_logits(
    bundle: str, golden: Golden, tokenizer: Tokenizer, classifier: Classifier, here: Machine
) -> SelfTest:
    """The result of a graph whose tokenizer gives the recorded ids.

    Raises:
        ModelError: the model breaks off, or its logits are not finite.
    """
    found = answer(classifier, tokenizer.with_max_length(golden.max_length), golden.texts)
    recorded, tolerance = golden.recorded.array, tolerance_of(golden)
    moved = np.abs(found.astype(np.float64) - recorded)
    columns, worst = moved.argmax(axis=1), moved.max(axis=1)
    rows = [row for row in np.argsort(-worst, kind="stable") if worst[row] > tolerance]
    names = classifier.labels.names
    return SelfTest(
        bundle=bundle,
        verdict="failed" if rows else "passed",
        num_texts=len(golden.texts),
        num_different=len(rows),
        largest=float(worst.max()),
        tolerance=tolerance,
        differences=tuple(
            Difference(
                text=_shown(golden.texts[row]),
                label=names[columns[row]],
                recorded=float(str(recorded[row, columns[row]])),
                found=float(str(found[row, columns[row]])),
            )
            for row in rows[:_MAX_SHOWN]
        ),
        recorded=golden.recorded.machine,
        here=here,
    )


def _columns(texts: Sequence[tuple[str, ...]]) -> tuple[list[str], list[str] | None]:
    """The texts, and their pairs; None where there are none."""
    pairs = [each[1] for each in texts if len(each) == 2]
    return [each[0] for each in texts], pairs or None


def _from_first(
    recorded: tuple[int, ...], found: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What two lists of ids have from the first difference on, a few of each."""
    same = 0
    while same < min(len(recorded), len(found)) and recorded[same] == found[same]:
        same += 1
    return recorded[same : same + _MAX_SHOWN], found[same : same + _MAX_SHOWN]


def _shown(text: tuple[str, ...]) -> str:
    return " | ".join(text)[:_SHOWN_CHARS]
