"""Files appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densnet.files import replacing, write_json, write_text


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent  # a rename is atomic within one file system only
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, fault: type[BaseException]) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1.5, None])

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise fault

    with pytest.raises(fault):
        interrupted()
    assert json.loads(path.read_text()) == [1.5, None]
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as one, replacing(path) as two:
        one.write_text("outer")
        two.write_text("inner")
    assert path.read_text() == "outer"
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_permissions_are_those_of_any_file(tmp_path: Path) -> None:
    """Also where the writer made a file that only its owner can read."""
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "a") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "a").stat().st_mode & 0o777 != 0o600
