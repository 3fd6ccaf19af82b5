"""What other libraries raise on a model's files: errors of ours, but never a signal."""

from __future__ import annotations

from pathlib import Path

import pytest

from monox_kit.errors import GateError, ModelError
from monox_kit.models.files import as_model_errors


class PanicException(BaseException):
    """As Rust's panics are called in Python: no `Exception`."""


class Stopped(BaseException):
    """As the command line ends by a signal."""


@pytest.mark.parametrize("error", [ValueError("bad"), RecursionError("deep"), PanicException("in")])
def test_whatever_a_library_raises_names_the_file(error: BaseException) -> None:
    with (
        pytest.raises(ModelError) as found,
        as_model_errors(Path("m/config.json"), "a model", "Stop."),
    ):
        raise error
    assert str(found.value).startswith("m/config.json: ") and str(error) in str(found.value)


@pytest.mark.parametrize("error", [Stopped(), KeyboardInterrupt(), SystemExit(1), GateError("own")])
def test_signals_and_errors_of_ours_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as found, as_model_errors(Path("m"), "a model", "Stop."):
        raise error
    assert found.value is error
