"""Which of the paper's tables and figures is made, and from what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from monox_kit.config import Config
from monox_kit.errors import ConfigError

ItemName = Literal["table1", "table2", "table3", "figure2", "figure3"]
# The recipe of each, unless another is named.
RECIPES: Mapping[str, str] = {
    "table1": "table1",
    "table2": "cls",
    "table3": "xnli",
    "figure2": "figure2",
    "figure3": "figure3",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReproduceConfig(Config):
    """Which table or figure is made from which run.

    Attributes:
        item: table1, table2, table3, figure2 or figure3 of the paper.
        recipe: a recipe's file, or the name of one that comes along [default: cls for table2, xnli
            for table3, that of the item's own name for the others].
        set: changes of the recipe, as monoxkit run takes them.
        preset: name of changes that go before those of `set`: paper, for the paper's
            configuration, or one of the recipe's own.
        run: folder of the recipe's run [default: the recipe's name, below runs]; with `finished`
            several: the further ones lend methods that the first lacks, such as the baseline.
        finished: run nothing, and make the item of what is finished in `run`, which tells the
            recipe where none is given; what is missing is named.
        out: folder to write to [default: that of the run, the first of several].
    """

    item: ItemName
    recipe: str | None = None
    set: tuple[str, ...] = ()
    preset: str | None = None
    run: tuple[Path, ...] = ()
    finished: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        if self.is_kept and (self.set or self.preset):
            raise ConfigError(
                f"`set` and `preset`: the recipe is the one that {self.run[0]} was made from, with "
                "its changes. Leave them out, or give `recipe` too."
            )
        if len(self.run) > 1 and not self.is_kept:
            raise ConfigError(
                "`run`: several runs are taken together only with `finished` and without `recipe`: "
                "each tells its own. Give one folder."
            )

    @property
    def is_kept(self) -> bool:
        """Whether the recipes are those that the runs' folders keep."""
        return self.finished and self.recipe is None and bool(self.run)
