"""`golden.json`: golden texts, and what they were given where a bundle was exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from monox_kit.data import Logits
from monox_kit.errors import ModelError
from monox_kit.hardware import read_hardware
from monox_kit.models.files import ModelFile, read_json
from monox_kit.results import Result

GOLDEN_VERSION = 1
_MAX_FLOAT32 = 3e38

# (text,) or (text, text_pair).
# Each is a run of its own, so that a stranger's file must not hold thousands.
_MAX_TEXTS = 200
Input: TypeAlias = Annotated[tuple[str, ...], MinLen(1), MaxLen(2)]
TokenIds: TypeAlias = Annotated[tuple[Annotated[int, Ge(0), Lt(1 << 31)], ...], MinLen(1)]
Row: TypeAlias = tuple[Annotated[float, Ge(-_MAX_FLOAT32), Le(_MAX_FLOAT32)], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What computed logits.

    Attributes:
        runtime: with its version, such as `onnxruntime 1.32.0`.
        provider: the runtime's execution provider; None where it has none.
        processor: the processor's name.
        features: which of its instructions decide how int8 and bfloat16 are computed.
    """

    runtime: str
    provider: str | None
    processor: str
    features: tuple[str, ...]

    @classmethod
    def here(cls, runtime: str, provider: str | None = None) -> Machine:
        """This machine under a runtime."""
        hardware = read_hardware()
        return cls(
            runtime=runtime,
            provider=provider,
            processor=hardware.cpu_model,
            features=hardware.cpu_features,
        )

    def __str__(self) -> str:
        provider = f", provider {self.provider}" if self.provider else ""
        features = " ".join(self.features) or "no int8 or bfloat16 instructions"
        return f"{self.runtime}{provider}, {self.processor} ({features})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """The logits that golden texts were given.

    Attributes:
        logits: of each text, in the order of the labels; the fewest digits that give the float32.
        machine: what computed them.
    """

    logits: tuple[Row, ...]
    machine: Machine

    @classmethod
    def of(cls, logits: Logits, machine: Machine) -> Answers:
        """Logits [N, C] that a machine computed."""
        return cls(
            logits=tuple(tuple(float(str(value)) for value in row) for row in logits),
            machine=machine,
        )

    @property
    def array(self) -> Logits:
        """[N, C] float32."""
        return np.array(self.logits, np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden(Result):
    """The content of `golden.json`.

    Attributes:
        format_version: of the file.
        texts: N golden texts, or N pairs where the model was trained on pairs.
        max_length: the cut in tokens that they were tokenized with.
        input_ids: the ids of each.
        reference: the logits of PyTorch in fp32.
        recorded: the logits of the bundle itself, where it was exported.
    """

    format_version: Annotated[int, Ge(GOLDEN_VERSION), Le(GOLDEN_VERSION)] = GOLDEN_VERSION
    texts: Annotated[tuple[Input, ...], MinLen(1), MaxLen(_MAX_TEXTS)]
    max_length: Annotated[int, Gt(0)]
    input_ids: tuple[TokenIds, ...]
    reference: Answers
    recorded: Answers

    @classmethod
    def read(cls, file: ModelFile, num_labels: int) -> Golden:
        """The content of a `golden.json`.

        Args:
            file: of a bundle.
            num_labels: C.

        Raises:
            ModelError: it is damaged, or is of another model.
        """
        from pydantic import TypeAdapter, ValidationError

        read_json(file)  # of a bearable size and depth
        try:
            golden = TypeAdapter(cls).validate_json(file.path.read_bytes(), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ModelError(
                f"{file.shown}: {place}: {first['msg']}, found {str(first['input'])[:80]!r}. "
                "Restore the file, or export the model again."
            ) from error
        golden._require_alike(file, num_labels)
        return golden

    def _require_alike(self, file: ModelFile, num_labels: int) -> None:
        """Check that there are as many of everything as there are texts and classes."""
        count = len(self.texts)
        counts = {len(self.input_ids), len(self.reference.logits), len(self.recorded.logits)}
        rows = (*self.reference.logits, *self.recorded.logits)
        if counts != {count} or len({len(each) for each in self.texts}) != 1:
            raise ModelError(
                f"{file.shown}: expected ids and logits for each of {count} texts, or of {count} "
                f"pairs, found {sorted(counts)}. Restore the file, or export the model again."
            )
        if {len(row) for row in rows} != {num_labels}:
            raise ModelError(
                f"{file.shown}: expected {num_labels} logits a text, as the bundle has labels, "
                f"found {sorted({len(row) for row in rows})[:5]}. Restore the file, or export the "
                "model again."
            )
