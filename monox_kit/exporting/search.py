"""Building graphs, checking each against PyTorch and timing it here; all but one are rejected.

With `auto`, the order saves time: every form in fp32 first, each checked before anything is made
from it; then the reduced precisions on the form that runs fastest, or on the next where they cannot
be built; then the best of those on the other forms. A gate has many rows: it is asked of the
fastest, and of the next where that one does not pass.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from monox_kit.data import Classifier, Int64s, Logits
from monox_kit.errors import GateError, ModelError, NotFinite, ProviderError, StorageError
from monox_kit.exporting.build import Builder, graph_bytes
from monox_kit.exporting.candidates import Candidate, RefusedExport, Subject
from monox_kit.exporting.choice import best_of, is_hopeless, leader_of, lost_to, speed
from monox_kit.exporting.config import AUTO, DEFAULT_FORM, FORMS, ExportConfig
from monox_kit.exporting.gate import FAILED, NOT_SHOWN, PASSED
from monox_kit.exporting.graph import cause_of
from monox_kit.exporting.judge import Judge
from monox_kit.exporting.quantize import candidates_of
from monox_kit.models.agreement import FP32_TOLERANCE, agreement
from monox_kit.models.folder import FP32, ModelFolder
from monox_kit.models.graph_classifier import OPENVINO
from monox_kit.models.providers import installed_providers, open_graph
from monox_kit.models.scoring import score_texts
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, ProgressTask

_ROUNDS = 3
# No fault of a candidate.
_OURS = (OSError, StorageError, MemoryError)


def _why_not(one: Candidate, best: Candidate) -> str:
    """Why one that was not rejected makes room for the best."""
    is_passed = best.gate is not None and best.gate.verdict == PASSED
    if is_passed and one.gate is not None and one.gate.verdict == NOT_SHOWN:
        return f"It is not shown to pass the gate: {one.gate.told(NOT_SHOWN)}."
    return lost_to(one, best)


class Search:
    """Tries candidates and keeps one.

    Attributes:
        builder: where their graphs are.
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
        self.builder = Builder(subject, work, progress)
        self.found: dict[str, Candidate] = {}
        self._config = config
        self._subject = subject
        self._task = task
        self._progress = progress
        self._graphs: dict[str, Classifier] = {}

    def keep_best(self) -> Candidate:
        """The candidate to keep; all others are rejected with their reason.

        Raises:
            ModelError: no fp32 graph, the source of the others, gives the logits of the model that
                it was made of, or the precision that was asked for cannot be built from any.
            GateError: the precision that was asked for must not be released, or with `auto` none.
        """
        best = self._fastest() if self._config.precision == AUTO else self._asked()
        self._graphs.clear()
        return best

    def _asked(self) -> Candidate:
        """The precision that was asked for, in the first form that works."""
        config, forms = self._config, self._forms()
        for form in forms:
            source = self._try(FP32, form, config.provider)
            asked = source
            if source.rejected is None and config.precision != FP32:
                asked = self._try(config.precision, form, config.provider)
            if asked.rejected is None:
                asked = self._gated(asked)
            if asked.rejected is None:
                self._reject_others(asked, f"precision {config.precision} was asked for")
                return asked
            if asked.cause is None and (asked is not source or asked.is_refused):
                raise self._refused(asked)
            if form != forms[-1]:
                self._progress.note(f"{asked.name}: {asked.rejected} Trying the next graph form.")
        raise self._refusal()

    def _fastest(self) -> Candidate:
        """Of everything worth trying on the providers asked for, the best that agrees."""
        chosen = self._config.provider
        for provider in installed_providers() if chosen == AUTO else [chosen]:
            tried = [self._try(FP32, form, provider) for form in self._forms()]
            sources = self._timed_in_turn(tried)
            has_gate = self._subject.judge is not None
            names = self._config.candidates or candidates_of(provider, has_gate=has_gate)
            made = [self._on_first_form(name, sources) for name in names] if sources else []
            reduced = [one for one in self._timed_in_turn(made) if one.rejected is None]
            for source in sources if reduced else []:
                if self.found[source.name].rejected is None:
                    self._try(reduced[0].precision, source.graph, provider)
        survivors = [one for one in self.found.values() if one.rejected is None]
        if not survivors:
            refused = [one for one in self.found.values() if one.is_refused]
            raise self._refused(refused[-1]) if refused else self._refusal()
        timed = self._timed_in_turn(survivors)
        best = self._best({one.name: one for one in timed if one.rejected is None})
        for one in list(self.found.values()):
            if one.rejected is None and one.name != best.name:
                self._note_or_drop(replace(one, rejected=_why_not(one, best)))
        return best

    def _best(self, left: dict[str, Candidate]) -> Candidate:
        """Of those that were timed, the fastest that passes the gate; without one, the fastest.

        Where none is shown to pass, it is the fastest that is not shown to fail.

        Raises:
            GateError: all of them fail.
        """
        judge = self._subject.judge
        can_pass = judge is not None and not judge.out_of_reach()
        unsure = []
        for one in self._fastest_first(left):
            best = self._gated(one)
            if best.rejected is not None:
                continue
            if best.gate is None or best.gate.verdict == PASSED or not can_pass:
                return best
            unsure.append(best)
        if not unsure:
            raise self._refused(best)
        return unsure[0]

    def _fastest_first(self, left: dict[str, Candidate]) -> Iterator[Candidate]:
        """Those that were timed to the end, then, opened again, those that were far behind."""
        while left:
            yield left.pop(best_of([*left.values()]).name)
        behind = [
            one
            for one in self.found.values()
            if one.tokens_per_s is not None and one.rejected is not None and one.gate is None
        ]
        for one in sorted(behind, key=speed, reverse=True):
            del self.found[one.name]
            again = self._try(one.precision, one.graph, one.provider)
            if again.rejected is None:
                yield self._note_or_drop(replace(again, tokens_per_s=one.tokens_per_s))

    def _forms(self) -> list[str]:
        """The forms to try, in order."""
        if self._config.graph is not None:
            return [self._config.graph]
        own: Any = self._subject.reference.model.config
        # A form that asks for the attention that the model has anyway is the default's graph again.
        repeats = replace(FORMS[DEFAULT_FORM], attention=own._attn_implementation)
        return [
            name for name in self._config.forms if name == DEFAULT_FORM or FORMS[name] != repeats
        ]

    def _on_first_form(self, precision: str, sources: Iterable[Candidate]) -> Candidate:
        """The precision on the first of the sources' forms that it can be built and run on."""
        for source in sources:
            tried = self._try(precision, source.graph, source.provider)
            if tried.cause is None:
                break
        return tried

    def _try(self, precision: str, form: str, provider: str) -> Candidate:
        """Build, open, score and judge one candidate; what is known already is not done again."""
        candidate = Candidate(precision=precision, graph=form, provider=provider)
        if candidate.name in self.found:
            return self.found[candidate.name]
        self._task.detail(f"building {candidate.name}")
        try:
            folder = self.builder.built(candidate)
        except Exception as error:  # exporters and quantizers raise whatever they meet
            return self._failed(candidate, error, "It cannot be built in this form.")
        candidate = replace(candidate, model_bytes=graph_bytes(folder.path))
        self._task.detail(f"checking {candidate.name}")
        try:
            return self._judged(candidate, folder)
        except Exception as error:  # a graph that loads may still fail to run
            return self._failed(candidate, error, _cannot_run(candidate))

    def _failed(self, candidate: Candidate, error: Exception, reason: str) -> Candidate:
        if isinstance(error, _OURS):
            raise error
        if isinstance(error, ProviderError):  # what is missing here is missing for every form
            if self._config.precision != AUTO:
                raise error
            return self._note_or_drop(replace(candidate, rejected=str(error)))
        return self._note_or_drop(replace(candidate, rejected=reason, cause=cause_of(error)))

    def _judged(self, candidate: Candidate, folder: ModelFolder) -> Candidate:
        """The candidate with its agreement, and rejected where that is too little."""
        labels = self._subject.reference.labels
        opened = open_graph(
            folder,
            labels,
            provider=candidate.provider,
            precision=candidate.run_precision,
            keep=False,  # most candidates are opened once
        )
        graph = self._subject.runner(opened)
        candidate = self._compared(candidate, graph, self._subject.first_rows)
        wanted = (AUTO, candidate.precision) if self._subject.judge is not None else (AUTO,)
        if candidate.rejected is None and self._config.precision in wanted:
            self._graphs[candidate.name] = graph  # to be timed, or asked by the gate
        return self._note_or_drop(candidate)

    def _compared(self, candidate: Candidate, graph: Classifier, rows: Int64s) -> Candidate:
        """The candidate with its agreement on some check texts, and what speaks against it."""
        subject = self._subject
        try:
            logits = score_texts(graph, subject.check, rows=rows).logits
        except NotFinite:
            return replace(candidate, rejected="Its logits are not finite; PyTorch's are.")
        is_first, least = candidate.agreement is None, self._config.min_agreement
        found = agreement(subject.expected[rows], logits, problem_of(subject.reference.labels))
        candidate = replace(candidate, agreement=found)
        exact = agreement(subject.own[rows], logits, problem_of(subject.reference.labels))
        if is_first and candidate.precision == FP32 and not exact.within_fp32:
            return replace(
                candidate,
                rejected=f"Its logits differ from PyTorch's by up to {exact.max_delta:.1e} on "
                f"{exact.num_texts} texts; rounding explains "
                f"{FP32_TOLERANCE * max(1.0, exact.max_logit):.1e}.",
            )
        if subject.judge is not None:
            return self._asked_of(subject.judge, candidate, logits, rows)
        if candidate.precision == FP32 and not subject.is_trimmed:
            return candidate  # rounding alone: ties of random models are no fault of a graph
        if found.argmax < least:
            whose = "the whole model's" if subject.is_trimmed else "PyTorch's"
            return replace(
                candidate,
                is_refused=True,
                rejected=f"It gives {whose} label on {found.argmax:.1%} of {found.num_texts} "
                f"texts; {least:.1%} is asked for.",
            )
        return candidate

    def _asked_of(
        self, judge: Judge, candidate: Candidate, logits: Logits, rows: Int64s
    ) -> Candidate:
        """The candidate as the gate finds it on some rows; the first can fail it, and pass none."""
        is_whole = len(rows) == len(self._subject.check)
        if not is_whole and self._config.precision != AUTO:
            return candidate  # where there is no choice, the table is to be of all rows
        report = judge.report(logits, rows)
        if report.verdict == FAILED:
            reason = f"It fails the gate: {report.told(FAILED)}."
            return replace(candidate, gate=report, rejected=reason, is_refused=True)
        return replace(candidate, gate=report if is_whole else None)

    def _gated(self, candidate: Candidate) -> Candidate:
        """The candidate as the gate finds it on all check texts; itself without a gate."""
        if self._subject.judge is None or candidate.gate is not None:
            return candidate
        rows = np.arange(len(self._subject.check))
        self._task.detail(f"checking {candidate.name} in every language")
        try:
            graph = self._graphs[candidate.name]
            return self._note_or_drop(self._compared(candidate, graph, rows))
        except Exception as error:  # as in `_try`: other texts are of other lengths
            return self._failed(candidate, error, _cannot_run(candidate))

    def _timed_in_turn(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Those that agree, timed in turn, fastest first; the hopeless are rejected, and listed."""
        runners = {one.name: one for one in candidates if one.rejected is None}
        rates: dict[str, list[float]] = {name: [] for name in runners}
        running = list(runners)
        for number in range(_ROUNDS):
            for name in running:
                self._task.detail(f"timing {name}, round {number + 1} of {_ROUNDS}")
                rates[name].append(self._rate(self._graphs[name]))
            if number > 0:
                running = [name for name in running if not is_hopeless(name, rates)]
        timed = {
            name: replace(one, tokens_per_s=round(median(rates[name]), 1))
            for name, one in runners.items()
        }
        for name, one in timed.items():
            if is_hopeless(name, rates):
                timed[name] = replace(one, rejected=lost_to(one, timed[leader_of(rates)]))
            self._note_or_drop(timed[name])
        return sorted(timed.values(), key=speed, reverse=True)

    def _rate(self, graph: Classifier) -> float:
        started = time.perf_counter()
        scored = score_texts(graph, self._subject.check, rows=self._subject.timed_rows)
        return scored.num_tokens / (time.perf_counter() - started)

    def _reject_others(self, kept: Candidate, reason: str) -> None:
        for one in list(self.found.values()):
            if one.rejected is None and one is not kept:
                self._note_or_drop(replace(one, rejected=reason))

    def listed(self) -> dict[str, dict[str, Any]]:
        """Every candidate as JSON values, by name."""
        return {name: one.to_json() for name, one in self.found.items()}

    def _refused(self, last: Candidate) -> GateError:
        """Why nothing is released, with what was measured."""
        name, reason = self._subject.folder.name, last.rejected
        has_gate = self._subject.judge is not None
        if self._config.precision == AUTO:
            asked = "passes the gate" if has_gate else "agrees often enough"
            reason = f"no graph {asked}. {last.name}: {reason}"
        less = "a `gate` that asks for less" if has_gate else "a smaller `min_agreement`"
        if last.precision != FP32:
            step = f"Give {less}, or a `precision` that keeps more, as fp32 does."
        elif self._subject.is_trimmed:
            step = f"Trim on more text (`trim`), or give {less}."
        else:
            step = f"Give {less}."
        return RefusedExport(f"{name}: {reason} {step}", self.listed(), last.gate).error()

    def _refusal(self) -> ModelError:
        """Why nothing can be released, form by form."""
        model, graph = self._subject.reference.model, self._config.graph
        names: dict[str, list[str]] = {}  # by reason: most forms fail alike
        for one in self.found.values():
            if one.rejected is not None:
                reason = f"{one.rejected} {one.cause or ''}".strip().rstrip(".")
                names.setdefault(reason, []).append(one.name)
        reasons = ". ".join(f"{', '.join(which)}: {reason}" for reason, which in names.items())
        step = (
            "docs/models.md lists the families that can be exported; a PyTorch folder is labelled "
            "with and evaluated as it is."
            if graph is None
            else "Leave `graph` out, to let the other forms be tried."
        )
        return ModelError(
            f"{self._subject.folder.name}: {type(model).__name__} cannot be exported as "
            f"{self._config.precision}. {reasons}. {step}"
        )

    def _note_or_drop(self, candidate: Candidate) -> Candidate:
        """Note what is known of a candidate now; a rejected one's session and files go."""
        if candidate.name not in self.found:
            self._task.advance()
        self.found[candidate.name] = candidate
        if candidate.rejected is not None:
            self._graphs.pop(candidate.name, None)
            # Their weights add up. An fp32 graph may still be the source of another.
            folder = self.builder.graph_folder(candidate)
            is_wanted = folder == self.builder.fp32_folder(candidate) or any(
                one.rejected is None and self.builder.graph_folder(one) == folder
                for one in self.found.values()
            )
            if not is_wanted:
                shutil.rmtree(folder, ignore_errors=True)
        return candidate


def _cannot_run(candidate: Candidate) -> str:
    runtime = "OpenVINO" if candidate.provider == OPENVINO else "onnxruntime"
    return f"{runtime} cannot run it in this form."
