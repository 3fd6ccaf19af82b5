"""An export that removes tokens first: the trimmed model, beside what the whole one says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from monox_kit.durable import make_folder
from monox_kit.exporting.candidates import Subject
from monox_kit.exporting.check_rows import CheckRows
from monox_kit.exporting.config import ExportConfig
from monox_kit.foreign import markdown_text
from monox_kit.models.folder import ModelFolder, open_folder
from monox_kit.models.load import open_tokenizer
from monox_kit.models.scoring import score_texts, tokenize
from monox_kit.models.torch_backend import load_classifier
from monox_kit.progress import Progress
from monox_kit.trimming.config import TrimConfig
from monox_kit.trimming.run import Trim


def trim_of(config: ExportConfig, progress: Progress) -> Trim | None:
    """The trim that an export asks for, its texts read; None where it asks for none."""
    if config.trim is None:
        return None
    asked = TrimConfig(model=config.model, corpus=config.trim, max_length=config.max_length)
    return Trim.opened(asked, progress)


def trimmed_subject(
    subject: Subject, trim: Trim, rows: CheckRows, folder: Path, progress: Progress
) -> Subject:
    """The subject with a trimmed model, which is still compared with the whole one's logits.

    Args:
        subject: the whole model.
        trim: what is removed from it.
        rows: the check texts, which the trimmed tokenizer may read otherwise.
        folder: a folder under construction, for the trimmed model.
        progress: where progress is reported.

    Raises:
        ModelError: the model is of a kind that cannot be trimmed.
    """
    trim.write_model(make_folder(folder), folder, progress)
    whole = subject.folder
    source = replace(
        open_folder(str(folder.absolute())), name=whole.name, label_names=whole.label_names
    )
    tokenizer = open_tokenizer(source, subject.tokenizer.max_length, subject.tokenizer.long)
    trimmed = replace(
        subject,
        folder=source,
        tokenizer=tokenizer,
        reference=load_classifier(source),
        check=tokenize(tokenizer, rows.check),
        calibration=tokenize(tokenizer, rows.calibration),
    )
    return replace(
        trimmed, own=score_texts(trimmed.runner(trimmed.reference), trimmed.check).logits
    )


def trimmed_tokens(folder: ModelFolder) -> str | None:
    """A sentence on what a trimmed model has left; None of a model that was not trimmed."""
    record = folder.record
    if record is None or record.stages[:1] != ("trim",):
        return None
    counts = [record.checks.get(name) for name in ("num_tokens", "num_tokens_before")]
    languages = record.checks.get("languages", ())
    if not all(isinstance(count, int) for count in counts):  # a record that another one wrote
        return None
    return (
        f"It has {counts[0]:,} of {counts[1]:,} tokens, trimmed for "
        f"{markdown_text(', '.join(map(str, languages)))}."
    )
