"""A model that is ready to predict: texts in, labels with probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from monox_kit.data import Document, Label, LabelSet, Logits
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.extras import missing_extra
from monox_kit.models.folder import Backend
from monox_kit.models.load import LoadedModel, load_model
from monox_kit.models.long_texts import Long
from monox_kit.models.scoring import DEFAULT_BATCH_TOKENS, Scored, score
from monox_kit.problem import Problem, problem_of
from monox_kit.progress import Progress

# Single texts, or pairs of them as the model was trained on.
Texts: TypeAlias = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one text.

    Attributes:
        label: the decision: one name; where a text may have any number of labels, the names of all
            classes with a probability above 1/2, which may be none.
        probability: of that label, in (0, 1]; of several labels, one for each.
        top: (name, probability) of the most probable classes, as many as `top_k`, best first.
        truncated: whether the text was longer than the model reads, and some of it was cut off.
        abstained: whether the model is less sure than its calibration asks for; None where it was
            not calibrated with a precision.
    """

    label: Label
    probability: float | tuple[float, ...]
    top: tuple[tuple[str, float], ...]
    truncated: bool = False
    abstained: bool | None = None


class Model:
    """A classifier that was opened for prediction; `monox_kit.load` makes it.

    Its methods may be called from several threads.

    Attributes:
        loaded: folder, tokenizer and classifier.
        labels: the classes in the order of the logits.
        problem: what labels and logits mean.
        calibration: what its record says of how sure it is; None where it was not calibrated.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded, self.labels = loaded, loaded.classifier.labels
        self.problem = problem_of(self.labels)
        record = loaded.folder.record
        self.calibration = None if record is None else record.calibration

    def logits(self, texts: Texts, *, batch_tokens: int = DEFAULT_BATCH_TOKENS) -> Logits:
        """[N, C] float32 logits of N texts or pairs, in their order.

        Args:
            texts: the texts, or (text, text_pair) tuples.
            batch_tokens: padded tokens per batch: speed and memory only.

        Raises:
            ConfigError: `texts` is one string, or mixes single texts and pairs.
            CorpusError: a text is empty or no text, or the model was trained on the other kind.
            ModelError: the model fails on these texts; the message names them.
        """
        documents = _documents(texts)
        if not documents:
            return np.zeros((0, len(self.labels)), np.float32)
        return self.score(documents, batch_tokens=batch_tokens).logits

    def score(
        self, documents: Sequence[Document], *, batch_tokens: int = DEFAULT_BATCH_TOKENS
    ) -> Scored:
        """What the model says of N documents, at least one."""
        loaded = self.loaded
        loaded.folder.require_pairs(documents[0].text_pair is not None, "texts")
        return score(loaded.classifier, loaded.tokenizer, documents, batch_tokens=batch_tokens)

    def probabilities(
        self,
        texts: Texts,
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        language: str | None = None,
    ) -> npt.NDArray[np.float64]:
        """[N, C] float64 probabilities of N texts or pairs; see `logits` for what is raised.

        A softmax where a text has one label; a sigmoid for each class where it has any number. A
        calibrated model's are calibrated, for texts in `language`.
        """
        logits = self.logits(texts, batch_tokens=batch_tokens)
        return self.problem.probabilities(self.calibrated(logits, [language] * len(logits)))

    def calibrated(self, logits: Logits, languages: Sequence[str | None]) -> Logits:
        """[N, C] logits of calibrated probabilities; as they are where the model has none.

        Args:
            logits: [N, C], as the model gives them.
            languages: N tags; None where a text's language is not known.
        """
        return logits if self.calibration is None else self.calibration.scaled(logits, languages)

    def abstentions(
        self, calibrated: Logits, languages: Sequence[str | None]
    ) -> npt.NDArray[np.bool_] | None:
        """[N] whether the model is less sure than its precision asks for; None without one."""
        if self.calibration is None or not self.calibration.thresholds:
            return None
        return self.calibration.abstains(self.problem.confidence(calibrated), languages)

    def predict(
        self,
        texts: Texts,
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        top_k: int = 1,
        language: str | None = None,
    ) -> list[Prediction]:
        """The label of each of N texts or pairs with its probability, in their order.

        Args:
            texts: the texts, or (text, text_pair) tuples.
            batch_tokens: padded tokens per batch: speed and memory only.
            top_k: classes in `Prediction.top`; at most all of them.
            language: tag of the texts' language, which a calibrated model has values for.

        Raises:
            ConfigError: `top_k` is less than 1, or as for `logits`.
            CorpusError: as for `logits`.
            ModelError: as for `logits`.
        """
        if top_k < 1:
            raise ConfigError(f"top_k: expected at least 1, found {top_k}. Ask for the best class.")
        documents = _documents(texts)
        if not documents:
            return []
        scored = self.score(documents, batch_tokens=batch_tokens)
        languages = [language] * len(documents)
        logits = self.calibrated(scored.logits, languages)
        found = predictions(self.problem, logits, top_k, self.abstentions(logits, languages))
        return [replace(one, truncated=bool(cut)) for one, cut in zip(found, scored.truncated)]


def load(
    model: str,
    *,
    backend: Backend | None = None,
    max_length: int | None = None,
    long: Long | None = None,
    labels: LabelSet | None = None,
    label_names: Sequence[str] = (),
    provider: str = "cpu",
    device: str = "cpu",
    check: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Open a model folder for prediction.

    An ONNX bundle needs onnxruntime, tokenizers and numpy; PyTorch and transformers are imported
    for PyTorch folders alone.

    Args:
        model: a PyTorch folder, an ONNX bundle, `packaged:NAME` or a hub name.
        backend: `onnx` or `torch`; None takes what the folder is made for.
        max_length: the truncation length in tokens; None takes the bundle's own, else 256.
        long: what is read of longer texts: `head`, `head-tail`, `windows:mean` or `windows:max`;
            None takes the bundle's own, else `head`.
        labels: names for the logits' columns where the model has none of its own.
        label_names: the same as names alone, in the order of the logits; a model's own stay.
        provider: what runs a bundle's graph: cpu, cuda or tensorrt of ONNX Runtime, openvino (its
            own runtime) or openvino-ep (through onnxruntime-openvino).
        device: PyTorch's device.
        check: whether to run the bundle's self test first: its files must have the digests, golden
            texts the ids and, up to rounding, the logits that were recorded at export.
        progress: where a download is reported.

    Raises:
        ModelError: the folder cannot be used on this backend; or, with `check`, the self test
            fails, or the folder has nothing to compare with.
        ProviderError: the provider or the device is not there, or (`MissingExtra`) a package.
    """
    try:
        loaded = load_model(
            model,
            backend=backend,
            max_length=max_length,
            long=long,
            labels=labels,
            label_names=label_names,
            provider=provider,
            device=device,
            check=check,
            progress=progress,
        )
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from error
    return Model(loaded)


def predictions(
    problem: Problem,
    logits: Logits,
    top_k: int = 1,
    abstained: npt.NDArray[np.bool_] | None = None,
) -> list[Prediction]:
    """What [N, C] logits say: N predictions with the `top_k` most probable classes each.

    Args:
        problem: what labels and logits mean.
        logits: [N, C], calibrated where the model is.
        top_k: classes in `Prediction.top`.
        abstained: [N] as `Model.abstentions` gives them.
    """
    probabilities = problem.probabilities(logits)
    # A stable sort: of equal probabilities the first class leads, as it does in decisions.
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    names = problem.labels.names
    found = []
    for row, label in enumerate(problem.decode(problem.decide(logits))):
        assert label is not None  # a decision is never "no label"
        top = tuple((names[column], float(probabilities[row, column])) for column in order[row])
        if isinstance(label, str):
            own: float | tuple[float, ...] = float(probabilities[row, names.index(label)])
        else:
            own = tuple(float(probabilities[row, names.index(name)]) for name in label)
        abstains = None if abstained is None else bool(abstained[row])
        found.append(Prediction(label, own, top, abstained=abstains))
    return found


def _documents(texts: Texts) -> list[Document]:
    """The texts as documents, each checked."""
    if isinstance(texts, str):
        raise ConfigError(
            "texts: expected a list of texts, found one text. Put it into a list: predict([text])."
        )
    documents = []
    for row, value in enumerate(texts):
        parts = tuple(value) if isinstance(value, tuple | list) else (value,)
        if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
            raise CorpusError(
                f"texts[{row}]: expected a text or a (text, text_pair) tuple, found "
                f"{str(value)[:80]!r}. Give strings."
            )
        for part in parts:
            if not part.strip():
                raise CorpusError(
                    f"texts[{row}]: expected a text, found an empty one. Leave it out."
                )
        documents.append(Document(row, str(row), *parts))
    num_pairs = sum(document.text_pair is not None for document in documents)
    if num_pairs not in (0, len(documents)):
        raise ConfigError(
            f"texts: expected single texts alone or pairs alone, found {num_pairs} pairs among "
            f"{len(documents)}. Predict them in two calls."
        )
    return documents
