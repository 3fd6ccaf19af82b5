"""Where the cache is, and whose it must be."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from monox_kit.cache import default_cache, keep_fonts, made_cache, read_own
from monox_kit.errors import ModelError, StorageError
from monox_kit.models import hub
from monox_kit.progress import Silent


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that names no folder, and no entry among the users."""

    def nobody(_user: int) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "MONOXKIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    return monkeypatch


def test_the_cache_follows_the_environment(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "monoxkit"
    bare.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by its specification
    assert default_cache() == tmp_path / ".cache" / "monoxkit"
    bare.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "monoxkit"
    bare.setenv("MONOXKIT_CACHE", "~/weights")
    assert default_cache() == tmp_path / "weights"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("own", [None, "~/weights", "~nobody-of-that-name/weights"])
def test_without_a_home_folder_the_variable_is_named(
    bare: pytest.MonkeyPatch, own: str | None
) -> None:
    if own is not None:
        bare.setenv("MONOXKIT_CACHE", own)
    for find in (default_cache, made_cache):
        with pytest.raises(StorageError, match=r"no home folder\. Set MONOXKIT_CACHE to a folder"):
            find()


def test_a_cache_that_cannot_be_made_names_the_variable(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    bare.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="MONOXKIT_CACHE"):
        made_cache()


def test_the_cache_is_made_for_its_user_alone(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("MONOXKIT_CACHE", str(tmp_path / "cache"))
    before = os.umask(0)
    try:
        assert made_cache() == made_cache() == tmp_path / "cache"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def open_to_all(cache: Path, _patch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    cache.chmod(0o1777)


def open_to_a_group(cache: Path, patch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    cache.chmod(0o775)
    as_if_owned(cache, patch, cache.stat().st_uid, cache.stat().st_uid + 1)


def of_another_user(cache: Path, patch: pytest.MonkeyPatch) -> None:
    cache.mkdir(mode=0o700)
    as_if_owned(cache, patch, os.geteuid() + 1, os.getegid())


def a_link_of_another_user(cache: Path, patch: pytest.MonkeyPatch) -> None:
    (cache.parent / "documents").mkdir(mode=0o700)
    cache.symlink_to("documents")
    as_if_owned(cache, patch, os.geteuid() + 1, os.getegid(), "lstat")


def a_file(cache: Path, _patch: pytest.MonkeyPatch) -> None:
    cache.write_text("")


def a_pipe(cache: Path, _patch: pytest.MonkeyPatch) -> None:
    os.mkfifo(cache)


def as_if_owned(path: Path, patch: pytest.MonkeyPatch, user: int, group: int, *calls: str) -> None:
    """Let the system say that the path belongs to another user, which only root could make so."""
    for name in calls or ("stat", "lstat"):
        real = getattr(os, name)

        def changed(asked: object, *, _real: object = real, **options: object) -> os.stat_result:
            found = _real(asked, **options)  # type: ignore[operator]
            if asked != path:
                return found
            return os.stat_result([*found[:4], user, group, *found[6:10]])

        patch.setattr(os, name, changed)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (open_to_all, "others may write"),
        (open_to_a_group, "others may write"),
        (of_another_user, "belongs to the user"),
        (a_link_of_another_user, "belongs to the user"),
        (a_file, "no folder"),
        (a_pipe, "no folder"),
    ],
)
def test_a_cache_that_others_may_write_to_is_not_believed(
    bare: pytest.MonkeyPatch, tmp_path: Path, make: Callable[..., None], reason: str
) -> None:
    make(tmp_path / "cache", bare)
    bare.setenv("MONOXKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StorageError, match=rf"{tmp_path}/cache: .*{reason}.*MONOXKIT_CACHE"):
        default_cache()


def test_a_cache_of_the_users_own_group_or_of_root_is_believed(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    bare.setenv("MONOXKIT_CACHE", str(cache))
    cache.mkdir()
    cache.chmod(0o775)
    with bare.context() as patch:
        as_if_owned(cache, patch, os.geteuid(), os.geteuid())
        assert default_cache() == cache
    cache.chmod(0o755)
    with bare.context() as patch:
        patch.setattr(os, "geteuid", lambda: 4711)
        as_if_owned(cache, patch, 0, 0)
        assert default_cache() == cache


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "absent"])
def test_only_plain_files_are_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "other").write_text("{}")
    path = tmp_path / "plan"
    match kind:
        case "link":
            path.symlink_to("other")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    with pytest.raises(OSError):
        read_own(path, 100)
    assert read_own(tmp_path / "other", 1) == b"{"


def test_a_file_of_another_user_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan").write_text("{}")
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "plan").stat().st_uid + 1)
    if (tmp_path / "plan").stat().st_uid == 0:
        os.chown(tmp_path / "plan", 4711, 4711)
    with pytest.raises(PermissionError):
        read_own(tmp_path / "plan", 100)


def test_matplotlib_keeps_its_fonts_in_the_cache(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("MPLCONFIGDIR", "")
    bare.delenv("MPLCONFIGDIR")
    keep_fonts()  # without a home folder
    assert "MPLCONFIGDIR" not in os.environ
    bare.setenv("HOME", str(tmp_path))
    keep_fonts()
    program = "import matplotlib.font_manager; print(matplotlib.get_cachedir())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / ".cache" / "monoxkit" / "matplotlib")
    assert {path.name for path in tmp_path.iterdir()} == {".cache"}
    assert {path.name for path in (tmp_path / ".cache").iterdir()} == {"monoxkit"}


def test_without_a_home_folder_downloads_name_the_variable(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(constants, "HF_HUB_CACHE", os.path.expanduser("~/.cache/huggingface/hub"))
    with pytest.raises(StorageError, match=r"no home folder\. Set HF_HOME"):
        hub.from_hub("owner/name", Silent())


def test_without_a_home_folder_a_path_into_it_is_not_found(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"~/models/mine: expected a model folder, found nothing"):
        hub.local_folder("~/models/mine", Silent())
