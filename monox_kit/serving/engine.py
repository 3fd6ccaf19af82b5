"""A served model: questions in, answers out, by the code that `mk.load(...).predict` runs.

An engine lives in one event loop. Tokenizing, runs and loading release the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from monox_kit.data import Classifier, Logits
from monox_kit.digest import digest_json
from monox_kit.errors import ModelError
from monox_kit.models.folder import ModelFolder, open_folder
from monox_kit.models.golden import GOLDEN_TEXTS
from monox_kit.models.graph_classifier import SessionPlan
from monox_kit.models.load import LoadedModel, OpenModel, require_runnable
from monox_kit.models.long_texts import reads_windows
from monox_kit.models.predict import Model
from monox_kit.models.providers import runtime_version
from monox_kit.models.run_plan import default_plan
from monox_kit.models.tokenizer import Encoded, Tokenizer
from monox_kit.models.tokenizer_files import Side
from monox_kit.progress import Progress
from monox_kit.serving.admission import Admission, Speed
from monox_kit.serving.config import ServeConfig
from monox_kit.serving.contract import (
    Answer,
    Kind,
    ModelFacts,
    Question,
    Refused,
    Timings,
)
from monox_kit.serving.lanes import Lanes, RunDone
from monox_kit.serving.limits import require_fits, require_length
from monox_kit.serving.sessions import Found, Row, Sessions, rows_of

# Up to so many characters are tokenized in the event loop, in less than a millisecond: handing them
# to a thread costs as much.
_AT_ONCE_CHARACTERS = 4096
# What a text that is not tokenized yet counts as; few languages have fewer characters per token.
_CHARACTERS_PER_TOKEN = 2
_POLL_S = 0.01
_WARM_LENGTHS = (16, 64, 256)


@dataclass(eq=False, slots=True)
class _Request:
    """A question at work, in the loop that it came in."""

    rows: list[Row]
    left: int
    answered: asyncio.Future[None]


@dataclass(slots=True)
class _Tokenized:
    encoded: Encoded
    seconds: float
    rows: list[Row] = field(default_factory=list)


class Engine:
    """A bundle that answers questions.

    Attributes:
        facts: what clients may know of it.
        reference: the folder that it was opened from.
        identity: a digest of all that its answers depend on.
        speed: measured tokens a second.
        sessions: what scores rows.
        lanes: what feeds them.
    """

    def __init__(
        self,
        name: str,
        reference: str,
        config: ServeConfig,
        *,
        on_run: Callable[[Engine, RunDone], None] = lambda engine, done: None,
        on_fault: Callable[[str], None] = lambda sentence: None,
        progress: Progress | None = None,
    ) -> None:
        """Open a bundle, test it, and run it once at every length; this takes a while.

        Args:
            name: that it is served under.
            reference: its folder.
            config: of the server.
            on_run: called in a thread after each run.
            on_fault: called in a thread with a sentence for the operator.
            progress: where a download is reported.

        Raises:
            ModelError: the bundle cannot be used here, or its self test fails.
            ProviderError: the provider is not there.
        """
        self.reference, self._config, self._on_run = reference, config, on_run
        opened, plan, classifier = _opened(reference, config, progress)
        self._model = Model(LoadedModel(opened.folder, "onnx", opened.tokenizer, classifier))
        self._tokenizers: dict[Side | None, Tokenizer] = {
            None: opened.tokenizer,
            "left": opened.tokenizer.with_truncation_side("left"),
            "right": opened.tokenizer.with_truncation_side("right"),
        }
        record = opened.folder.record
        self.identity = identity_of(opened.folder)
        self.facts = ModelFacts(
            name=name,
            digest=opened.folder.model_digest,
            labels=self._model.labels,
            problem=self._model.problem,
            max_length=opened.tokenizer.max_length,
            has_pairs=None if record is None else record.has_pairs,
            precision=None if record is None else record.precision,
            provider=config.provider,
            runtime=runtime_version(config.provider),
            is_calibrated=self._model.calibration is not None,
        )
        self.speed = Speed(plan.sessions, config.batch_tokens)
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-tokenizer")
        self._tokens_ahead = self._num_asked = 0
        self.sessions = Sessions(
            name,
            classifier,
            reopen=lambda: opened.classifier(plan=plan),
            padding=opened.tokenizer.padding,
            read=self._read,
            tell=on_fault,
            probe=rows_of(opened.tokenizer.encode([GOLDEN_TEXTS[0]]), None)[0],
        )
        self.lanes = Lanes(name, self.sessions, self.speed, on_done=self._done, tell=on_fault)
        self._warm_up()

    def start(self) -> None:
        """Begin to answer."""
        self.lanes.start()

    def wait_s(self, tokens: int = 0) -> float:
        """The predicted wait of a request that comes now, beside its own runs.

        Args:
            tokens: of the request: a large one waits for all that comes before its last row.
        """
        speed = self.speed.tokens_per_s
        ahead = self.lanes.tokens_ahead(time.monotonic() + tokens / speed)
        return (ahead + self._tokens_ahead) / speed

    async def answer(self, question: Question, admission: Admission | None = None) -> Answer:
        """What the model says.

        Cancelled, it leaves nothing behind.

        Args:
            question: what is asked.
            admission: lets the question in, or does not; None lets all in.

        Raises:
            Refused: the question cannot be answered, or not in time.
        """
        deadline_s = asyncio.get_running_loop().time() + self._config.timeout_s
        characters = require_fits(question, self._model, self._config)
        expected = min(
            characters // _CHARACTERS_PER_TOKEN, len(question.rows) * self.facts.max_length
        )
        if admission is not None:
            admission.require(self.wait_s(expected))
        self._num_asked += 1
        try:
            async with asyncio.timeout_at(deadline_s):
                tokenized = await self._tokenized(question, characters, expected)
                await self._answered(tokenized.rows)
        except TimeoutError:
            raise Refused(
                Kind.DEADLINE, f"There was no answer within {self._config.timeout_s:g} s."
            ) from None
        finally:
            self._num_asked -= 1
        return self._answer(tokenized)

    async def close(self) -> None:
        """Answer what was asked, then let go of the sessions."""
        while self._num_asked:
            await asyncio.sleep(_POLL_S)
        await asyncio.to_thread(self.lanes.close)
        self._tokenizing.shutdown(wait=False)

    async def _tokenized(self, question: Question, characters: int, expected: int) -> _Tokenized:
        """The question's tokens, about as many as expected; what takes long is done in a thread."""
        if characters <= _AT_ONCE_CHARACTERS:
            return self._tokenize(question)
        loop = asyncio.get_running_loop()
        self._tokens_ahead += expected
        try:
            return await loop.run_in_executor(self._tokenizing, self._tokenize, question)
        finally:
            self._tokens_ahead -= expected

    def _tokenize(self, question: Question) -> _Tokenized:
        begun = time.perf_counter()
        tokenizer = self._tokenizers[question.truncation_side]
        firsts = [row if isinstance(row, str) else row[0] for row in question.rows]
        seconds = [row[1] for row in question.rows if not isinstance(row, str)]
        try:
            encoded = tokenizer.encode(firsts, seconds or None)
        except ModelError as error:
            raise Refused(
                Kind.INVALID, "A text cannot be tokenized. Check that it is valid Unicode."
            ) from error
        require_length(question, encoded, self.facts.max_length, self._config)
        rows = rows_of(encoded, question.language)
        return _Tokenized(encoded, time.perf_counter() - begun, rows)

    async def _answered(self, rows: list[Row]) -> None:
        """Wait until each of the rows has been run."""
        loop = asyncio.get_running_loop()
        request = _Request(rows, len(rows), loop.create_future())
        for row in rows:
            row.owner = request
        # A request's later rows wait as long as its own earlier ones take: those of a small request
        # that comes meanwhile go between them.
        taken = np.cumsum([len(row.ids) for row in rows]) / self.speed.tokens_per_s
        self.lanes.add(rows, (time.monotonic() + taken).tolist())
        try:
            await request.answered
        finally:
            if request.left:
                self.lanes.drop(rows)

    def _done(self, done: RunDone) -> None:
        """Tell the requests of a run, in their loop."""
        self._on_run(self, done)
        owner = done.rows[0].owner
        assert isinstance(owner, _Request)
        owner.answered.get_loop().call_soon_threadsafe(_settle, done.rows)

    def _answer(self, tokenized: _Tokenized) -> Answer:
        found = [row.found for row in tokenized.rows]
        said = [one for one in found if isinstance(one, Found)]
        abstained = [one.abstained for one in said if one.abstained is not None]
        encoded = tokenized.encoded
        return Answer(
            model=self.facts,
            logits=np.stack([one.logits for one in said]),
            probabilities=np.stack([one.probabilities for one in said]),
            decisions=tuple(one.decision for one in said),
            abstained=np.array(abstained) if abstained else None,
            tokens=encoded.lengths + encoded.truncated,
            truncated=encoded.truncated > 0,
            timings=Timings(
                tokenizing_s=tokenized.seconds,
                queue_s=max(row.begun_s - row.added_s for row in tokenized.rows),
                run_s=max(row.run_s for row in tokenized.rows),
            ),
        )

    def _read(self, logits: Logits, languages: Sequence[str | None]) -> list[Found]:
        """What [B, C] logits say of B rows, as `Model.predict` reads them."""
        model = self._model
        calibrated = model.calibrated(logits, languages)
        probabilities = model.problem.probabilities(calibrated).astype(np.float32)
        abstained = model.abstentions(calibrated, languages)
        decisions = model.problem.decode(model.problem.decide(calibrated))
        found = []
        for row, decision in enumerate(decisions):
            assert decision is not None  # a decision is never "no label"
            unsure = None if abstained is None else bool(abstained[row])
            found.append(Found(logits[row], probabilities[row], decision, unsure))
        return found

    def _warm_up(self) -> None:
        """Run batches of every length, the longest first: memory is at its most when it is over."""
        longest = self.facts.max_length
        words = " ".join(GOLDEN_TEXTS)
        lengths = sorted({longest, *(one for one in _WARM_LENGTHS if one < longest)}, reverse=True)
        for length in lengths:
            text = words * (1 + 2 * length // len(words.split()))
            tokenizer = self._tokenizers[None].with_max_length(length)
            row = rows_of(tokenizer.encode([text]), None)[0]
            count = max(1, self._config.batch_tokens // length)
            self.lanes.measure([row] * count)


def identity_of(folder: ModelFolder) -> str:
    """A digest of all that a bundle's answers depend on."""
    record = None if folder.record is None else folder.record.to_json()
    return digest_json([folder.model_digest, folder.tokenizer_digest, record])


def _settle(rows: Sequence[Row]) -> None:
    """Count rows of a run as answered; a request ends with the last, or with one that failed."""
    for row in rows:
        request = row.owner
        assert isinstance(request, _Request)
        request.left -= 1
        if request.answered.done():  # cancelled, or another row failed
            continue
        if isinstance(row.found, Refused):
            request.answered.set_exception(row.found)
        elif not request.left:
            request.answered.set_result(None)


def _require_one_row(reference: str, tokenizer: Tokenizer) -> None:
    """Check that each text is one row of tokens."""
    if reads_windows(tokenizer.long):
        raise ModelError(
            f"{reference}: this bundle reads long texts as {tokenizer.long}, and the server gives "
            "each text one row of tokens. Export it with `long` head or head-tail, or use predict."
        )


def _opened(
    reference: str, config: ServeConfig, progress: Progress | None
) -> tuple[OpenModel, SessionPlan, Classifier]:
    """A bundle with its sessions, tested as the configuration asks."""
    folder = open_folder(reference, progress)
    folder.require_backend("onnx")
    require_runnable("onnx", config.provider, "cpu")
    opened = OpenModel(folder, "onnx", config.max_length, provider=config.provider)
    _require_one_row(reference, opened.tokenizer)
    plan = default_plan(config.provider, config.sessions, config.threads).session
    assert plan is not None  # PyTorch alone has none
    if not config.self_test:
        return opened, plan, opened.classifier(plan=plan)
    classifier, result = opened.tested(plan=plan)
    try:
        result.require_passed()
    except ModelError as error:
        if result.verdict != "none":
            raise
        raise ModelError(f"{error} Or serve it untested: `no_self_test`.") from error
    assert classifier is not None  # what passed was scored
    return opened, plan, classifier
