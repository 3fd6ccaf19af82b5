"""Outputs that are links: each command works in the folder behind, and finds its work again."""

from __future__ import annotations

from pathlib import Path

from monoxkit_cli.app import main
from tests.tiny_models import bert_encoder, labelled_rows, write_jsonl


def test_commands_finish_into_a_link_to_an_empty_folder_and_find_it_again(tmp_path: Path) -> None:
    """On a scratch disk, say, with a link in the project's folder."""
    write_jsonl(tmp_path / "train.jsonl", labelled_rows(12, seed=1))
    write_jsonl(tmp_path / "dev.jsonl", labelled_rows(9, seed=2))
    bert_encoder(tmp_path / "encoder")
    names = ("teacher", "bundle", "store", "half", "student")
    (tmp_path / "links").mkdir()
    for name in names:
        (tmp_path / "scratch" / name).mkdir(parents=True)
        (tmp_path / "links" / name).symlink_to(tmp_path / "scratch" / name)
    links, steps = tmp_path / "links", "--max-steps 2 --batch-size 4 --max-length 16"
    label = f"label --model {links}/bundle --corpus {tmp_path}/train.jsonl --shard-rows 6"
    commands = (
        f"train-teacher --model {tmp_path}/encoder --train {tmp_path}/train.jsonl "
        f"--dev {tmp_path}/dev.jsonl --out {links}/teacher {steps}",
        f"export {links}/teacher --out {links}/bundle --check {tmp_path}/dev.jsonl",
        f"{label} --store {links}/store",
        f"{label} --store {links}/half --begin",
        f"{label} --store {links}/half --shard-range 0:1",
        f"train-student --model {tmp_path}/encoder --store {links}/store --method kd "
        f"--dev {tmp_path}/dev.jsonl --out {links}/student {steps}",
    )
    for command in commands * 2:
        assert main(command.split()) == 0, command
    for name in names:
        assert (links / name).is_symlink()
        assert any((tmp_path / "scratch" / name).iterdir())
    assert {path.name for path in links.iterdir()} == set(names)
