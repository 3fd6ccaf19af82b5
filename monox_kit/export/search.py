"""Building graphs, checking each against PyTorch and timing it here; all but one are rejected.

The order saves time: every form in fp32 first, each checked before anything is made from it; then
the reduced precisions on the form that runs fastest, and the best of those on the other forms.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from monox_kit.data import Classifier
from monox_kit.errors import GateError, ModelError, MonoxError, StorageError, first_line
from monox_kit.export.candidates import AUTO, Candidate, ExportConfig, Subject
from monox_kit.export.graph import (
    DEFAULT_FORM,
    FORMS,
    GraphForm,
    fuse_graph,
    gather_weights,
    write_form,
    write_fp32_with_optimum,
)
from monox_kit.export.last_layer import slice_last_layer
from monox_kit.export.quantize import CANDIDATE_PRECISIONS, write_quantized
from monox_kit.models.agreement import Agreement, agreement
from monox_kit.models.folder import BF16, FP32, ONNX_DATA_FILE, ONNX_FILE, ModelFolder
from monox_kit.models.onnx_backend import OnnxClassifier, installed_providers
from monox_kit.models.scoring import score_texts
from monox_kit.models.torch_backend import load_classifier
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, ProgressTask

# A candidate that is this much slower than the fastest one so far is not timed again.
_HOPELESS = 1.5
# Among candidates that are as fast as the fastest but for this, the one that agrees best is kept.
_TIE = 0.95
_ROUNDS = 3


class Search:
    """Builds candidates below `work` and keeps one.

    Attributes:
        found: every candidate by name, in the order of trying.
    """

    def __init__(
        self,
        config: ExportConfig,
        subject: Subject,
        work: Path,
        *,
        task: ProgressTask,
        progress: Progress,
    ) -> None:
        self._config = config
        self._subject = subject
        self._work = work
        self._task = task
        self._progress = progress
        self._graphs: dict[str, Classifier] = {}
        self.found: dict[str, Candidate] = {}

    def keep_best(self) -> Candidate:
        """The candidate to keep; all others are rejected with their reason.

        Raises:
            ModelError: no fp32 graph, the source of the others, agrees with PyTorch.
            GateError: the precision that was asked for must not be released.
        """
        if self._config.precision == AUTO:
            return self._keep(self._search())
        return self._keep([self._asked()])

    def graph_folder(self, candidate: Candidate) -> Path:
        """Where the candidate's `model.onnx` lies; bf16 is a way to run the fp32 one."""
        stored = FP32 if candidate.precision == BF16 else candidate.precision
        return self._work / (candidate.graph or "optimum") / stored

    def fp32_folder(self, candidate: Candidate) -> Path:
        """Where the fp32 graph lies that the candidate is, or was made from."""
        return self.graph_folder(replace(candidate, precision=FP32))

    def _asked(self) -> Candidate:
        """Exactly the precision and form that were asked for."""
        config = self._config
        form = None if config.exporter == "optimum" else config.graph or DEFAULT_FORM
        source = self._try(FP32, form, config.provider)
        if source.rejected is not None:
            raise ModelError(f"{self._subject.folder.name}: {source.rejected}")
        if config.precision == FP32:
            return source
        asked = self._try(config.precision, form, config.provider)
        if asked.rejected is not None:
            raise GateError(f"{self._subject.folder.name}: {asked.rejected}")
        self._reject(source, f"--precision {config.precision} was asked for")
        return asked

    def _search(self) -> list[Candidate]:
        """Everything worth trying on the providers asked for; those that passed."""
        config = self._config
        chosen = config.provider
        providers = installed_providers() if chosen == AUTO else [chosen]
        forms: list[str | None] = [config.graph] if config.graph else list(FORMS)
        if config.exporter == "optimum":
            forms = [None]
        for provider in providers:
            sources = [self._try(FP32, form, provider) for form in forms]
            passed = self._drop_hopeless(one for one in sources if one.rejected is None)
            if not passed:
                continue
            best = passed[0]
            names = config.candidates or CANDIDATE_PRECISIONS[provider]
            made = [self._try(name, best.graph, provider) for name in names]
            reduced = self._drop_hopeless(one for one in made if one.rejected is None)
            for other in passed[1:] if reduced else []:
                self._try(reduced[0].precision, other.graph, provider)
        survivors = [one for one in self.found.values() if one.rejected is None]
        if not survivors:  # nothing is made from an fp32 graph that differs: none agreed
            first = next(iter(self.found.values()))
            raise ModelError(f"{self._subject.folder.name}: {first.rejected}")
        return self._final_race(self._drop_hopeless(survivors))

    def _try(self, precision: str, form: str | None, provider: str) -> Candidate:
        """Build, load, check and time one candidate; its reason to be rejected is part of it."""
        candidate = Candidate(precision=precision, graph=form, provider=provider)
        self._task.detail(f"building {candidate.name}")
        try:
            folder = self._built(candidate)
        except (OSError, StorageError, MemoryError):
            raise  # no fault of the candidate
        except Exception as error:  # quantizers raise whatever they meet; the rest must not be lost
            reason = f"expected the {candidate.name} graph to be built, found: {first_line(error)}."
            if self._config.precision != AUTO:
                raise error if isinstance(error, MonoxError) else ModelError(reason) from error
            return self._note_or_drop(replace(candidate, rejected=reason))
        candidate = replace(candidate, model_bytes=_model_bytes(folder.path))
        self._task.detail(f"checking {candidate.name}")
        try:
            labels = self._subject.reference.labels
            graph = self._subject.runner(
                OnnxClassifier(folder, labels, provider=provider, precision=candidate.run_precision)
            )
            logits = score_texts(graph, self._subject.check).logits
        except MonoxError as error:
            return self._note_or_drop(replace(candidate, rejected=str(error)))
        except Exception as error:  # a graph that loads may still fail to run
            reason = f"expected the {candidate.name} graph to run, found: {first_line(error)}."
            return self._note_or_drop(replace(candidate, rejected=reason))
        found = None
        if np.isfinite(logits).all():
            problem = problem_of(self._subject.reference.labels)
            found = agreement(self._subject.expected, logits, problem)
        reason_or_none = self._reason(candidate, found)
        if reason_or_none is None:
            self._graphs[candidate.name] = graph
            if self._config.precision == AUTO:
                candidate = replace(candidate, tokens_per_s=self._rate(graph))
        return self._note_or_drop(replace(candidate, agreement=found, rejected=reason_or_none))

    def _built(self, candidate: Candidate) -> ModelFolder:
        """The candidate as an openable folder; what is there already is used again."""
        source, folder = self._subject.folder, self.graph_folder(candidate)
        if not (folder / ONNX_FILE).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._write(candidate, folder)
            except BaseException:
                shutil.rmtree(folder)  # half-built, it would be taken for the whole later
                raise
        return ModelFolder(
            path=folder,
            name=f"{source.name} ({candidate.name})",
            config=source.config,
            record=source.record,
        )

    def _write(self, candidate: Candidate, folder: Path) -> None:
        """Write the candidate's graph into an empty folder."""
        if self.graph_folder(candidate) != self.fp32_folder(candidate):
            source = self.fp32_folder(candidate)
            write_quantized(candidate.precision, source, folder, self._subject.calibration)
        elif candidate.graph is None:
            write_fp32_with_optimum(self._subject.folder, folder)
            gather_weights(folder)
            self._slice_last_layer(candidate, folder)
        else:
            self._write_fp32(candidate, FORMS[candidate.graph], folder)

    def _write_fp32(self, candidate: Candidate, form: GraphForm, folder: Path) -> None:
        model = self._subject.reference.model
        if form.attention is not None:
            default = getattr(model.config, "_attn_implementation", None)
            is_same = default == form.attention and form.opset == FORMS[DEFAULT_FORM].opset
            if is_same and self._config.graph is None:
                raise ModelError(
                    f"expected another attention than the model's own, found {default} in both: "
                    f"the graph is that of {DEFAULT_FORM}"
                )
            model = load_classifier(self._subject.folder, attention=form.attention).model
        write_form(model, folder, form, token_types=self._subject.tokenizer.has_token_types)
        self._slice_last_layer(candidate, folder)
        if form.fused:
            fuse_graph(model.config, folder)

    def _slice_last_layer(self, candidate: Candidate, folder: Path) -> None:
        """Compute the last layer for the first token alone, or say why not."""
        texts = self._subject.calibration.texts
        try:
            slice_last_layer(folder, texts, self._subject.tokenizer.max_length)
        except ModelError as error:
            self._progress.note(f"{candidate.name}: {error}")

    def _reason(self, candidate: Candidate, found: Agreement | None) -> str | None:
        """Why a candidate must not be released; None where it may."""
        name, least = candidate.name, self._config.min_agreement
        if found is None:
            return (
                f"expected finite logits of the {name} graph, found others. Use another precision."
            )
        if candidate.precision == FP32 and not found.within_fp32:
            return (
                "expected the fp32 graph's logits within rounding of PyTorch's, found a difference "
                f"of {found.max_delta:.2e} on {found.num_texts} texts. Try another --exporter."
            )
        if candidate.precision != FP32 and found.argmax < least:
            return (
                f"expected {name} to give PyTorch's label on at least {least:.1%} of "
                f"{found.num_texts} texts (--min-agreement), found {found.argmax:.1%}. "
                "Use --precision fp32, or allow less."
            )
        return None

    def _rate(self, graph: Classifier) -> float:
        started = time.perf_counter()
        scored = score_texts(graph, self._subject.check, rows=self._subject.timed_rows)
        return round(scored.num_tokens / (time.perf_counter() - started), 1)

    def _drop_hopeless(self, passed: Iterable[Candidate]) -> list[Candidate]:
        """Those that can still win, fastest first; the rest is rejected, its session closed."""
        ranked = _fastest_first(passed)
        hopeful = []
        for one in ranked:
            if _speed(one) * _HOPELESS < _speed(ranked[0]):
                self._reject(one, f"slower than {ranked[0].name} here")
            else:
                hopeful.append(one)
        return hopeful

    def _final_race(self, finalists: list[Candidate]) -> list[Candidate]:
        """The finalists, timed in turn, the one to keep first."""
        if len(finalists) == 1:
            return finalists
        rates: dict[str, list[float]] = {one.name: [] for one in finalists}
        for number in range(_ROUNDS):
            for one in finalists:
                self._task.detail(f"timing {one.name}, round {number + 1} of {_ROUNDS}")
                rates[one.name].append(self._rate(self._graphs[one.name]))
        timed = _fastest_first(
            self._note_or_drop(replace(one, tokens_per_s=median(rates[one.name])))
            for one in finalists
        )
        level = [one for one in timed if _speed(one) >= _TIE * _speed(timed[0])]
        best = max(level, key=lambda one: one.agreement.argmax if one.agreement else 0.0)
        return [best, *(one for one in timed if one is not best)]

    def _keep(self, ranked: list[Candidate]) -> Candidate:
        best = ranked[0]
        for one in ranked[1:]:
            is_faster = _speed(one) > _speed(best)
            reason = "hardly faster and agrees less than" if is_faster else "slower than"
            self._reject(one, f"{reason} {best.name} here")
        self._graphs.clear()
        return best

    def _reject(self, candidate: Candidate, reason: str) -> None:
        self._note_or_drop(replace(candidate, rejected=reason))

    def _note_or_drop(self, candidate: Candidate) -> Candidate:
        """Note what is known of a candidate now; a rejected one's session and files go."""
        if candidate.name not in self.found:
            self._task.advance()
        self.found[candidate.name] = candidate
        if candidate.rejected is not None:
            self._graphs.pop(candidate.name, None)
            # Their weights add up. An fp32 graph may still be the source of another.
            folder = self.graph_folder(candidate)
            is_wanted = folder == self.fp32_folder(candidate) or any(
                one.rejected is None and self.graph_folder(one) == folder
                for one in self.found.values()
            )
            if not is_wanted:
                shutil.rmtree(folder, ignore_errors=True)
        return candidate


def _speed(candidate: Candidate) -> float:
    """Real tokens per second; 0 where it was not timed."""
    return candidate.tokens_per_s or 0.0


def _fastest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=_speed, reverse=True)


def _model_bytes(folder: Path) -> int:
    files = (folder / ONNX_FILE, folder / ONNX_DATA_FILE)
    return sum(path.stat().st_size for path in files if path.is_file())
