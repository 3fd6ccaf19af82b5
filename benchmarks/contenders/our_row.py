"""monoxkit itself, from a file of texts to a verified store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contenders.contract import Clock, Job, Request
from monox_kit.progress import Silent, SilentTask


class OurRow:
    """monoxkit: a file of texts in, a verified logit store out."""

    def __init__(self, job: Job, clock: Clock) -> None:
        from monox_kit.models.load import require_runnable

        require_runnable("onnx", job.provider, "cpu")
        self._job, self._clock = job, clock
        self.settings: dict[str, Any] = {"provider": job.provider, "guard": job.guard}

    def score(self, request: Request) -> Any:
        """[N, C] float32 logits, read back from the store once it is verified."""
        from monox_kit.corpora.corpus import CorpusConfig
        from monox_kit.hardware import num_threads
        from monox_kit.labelling import LabelConfig, label_corpus
        from monox_kit.store import LogitStore

        config = LabelConfig(
            teacher="onnx",
            model=str(self._job.bundle),
            corpus=CorpusConfig(paths=(request.texts_path,), format="jsonl"),
            max_length=self._job.max_length,
            provider=self._job.provider,
            guard=self._job.guard,
            # Where all cores were given, the plan is chosen as it always is.
            threads=self._job.threads if self._job.threads != num_threads() else None,
        )
        label_corpus(config, Path(request.store), progress=Watcher(self._clock))
        return LogitStore.open(request.store, verify="full").logits(slice(None))


class Watcher(Silent, SilentTask):
    """Progress, and its one bar, that end a run whose time is over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts = False

    def task(self, description: str, total: int | None, unit: str, done: int = 0) -> Watcher:
        """A bar that checks the time."""
        self._counts = description.startswith("labelling")
        return self

    def advance(self, amount: int = 1) -> None:
        """Count rows that are labelled; how many tokens they have is not known here."""
        if self._counts:
            self._clock.count(amount, 0)
        self._clock.check()
