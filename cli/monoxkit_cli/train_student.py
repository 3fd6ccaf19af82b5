"""`monoxkit train-student`: a multilingual student from logit stores, or from its own labels."""

from __future__ import annotations

from monoxkit_cli.derive import Command
from monoxkit_cli.train_teacher import summary_table, train

COMMAND = Command(
    name="train-student",
    stage="train_student",
    help="""Train a student from stores; the teacher is not needed.

    ce: cross-entropy on --labelled alone, the baseline. pl: --labelled and the teacher's confident
    hard labels. kd: the teacher's soft targets for every row of the stores, so label the labelled
    texts too. self-training: --labelled, and --unlabelled with the student's own labels of the
    round before. Run again, it resumes at the newest checkpoint. torchrun and accelerate launch
    start it in several processes, self-training excepted.

    Example: monoxkit train-student --method kd --model M --store S --dev dev.jsonl --out DIR
    """,
    run=train,
    show=summary_table,
)
