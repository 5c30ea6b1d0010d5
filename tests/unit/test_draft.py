"""A draft has in its file what it has in memory, or no file."""

import errno
import gc
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from pacs.draft import Draft

HEAD = b"head" * 30


def begun(path: Path, rooms: list[bool] | None = None) -> Draft:
    left = iter(rooms or [])
    return Draft(path, HEAD, lambda: next(left, True))


def test_the_file_has_the_head_and_all_that_came(tmp_path: Path) -> None:
    draft = begun(tmp_path / "draft")
    assert draft.write(memoryview(b"first ")) == 6
    draft.write(b"second")
    assert draft.getvalue() == b"first second"
    assert draft.path.read_bytes() == HEAD + b"first second"
    assert draft.holds(HEAD + b"first second")
    draft.sync()
    assert not draft.holds(b"other" + HEAD[5:] + b"first second"), "it came under other names"
    assert not draft.holds(HEAD + b"first")


def test_another_name_stays(tmp_path: Path) -> None:
    draft = begun(tmp_path / "draft")
    (tmp_path / "named").hardlink_to(draft.path)
    draft.discard()
    draft.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["named"]


def test_what_is_discarded_is_not_written_to(tmp_path: Path) -> None:
    draft = begun(tmp_path / "draft")
    draft.discard()
    other = (tmp_path / "other").open("wb")  # takes the number of the descriptor
    draft.write(b"more")
    other.close()
    assert draft.getvalue() == b"more"
    assert (tmp_path / "other").read_bytes() == b""
    assert not draft.holds(HEAD + b"more")


def test_one_that_is_forgotten_leaves_no_file(tmp_path: Path) -> None:
    draft = begun(tmp_path / "draft")
    draft.write(b"bytes")
    del draft
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", [3, None])
def test_a_disk_that_takes_a_part_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | None
) -> None:
    draft = begun(tmp_path / "draft")

    def full(_descriptor: int, _piece: Any) -> int:
        if written is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    monkeypatch.setattr(os, "write", full)
    assert draft.write(b"bytes") == 5
    assert isinstance(draft, BytesIO)
    assert draft.getvalue() == b"bytes", "it goes on in memory"
    assert not draft.holds(HEAD + b"bytes")
    assert list(tmp_path.iterdir()) == []


def test_room_is_asked_for_at_first_and_for_each_mebibyte(tmp_path: Path) -> None:
    draft = begun(tmp_path / "draft", [True, True, False])
    piece = b"\0" * (1 << 19)
    for _number in range(4):
        draft.write(piece)
        assert draft.path.exists()
    draft.write(piece)
    assert not draft.path.exists()
    assert not begun(tmp_path / "full", [False]).path.exists()


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    draft = begun(tmp_path / "absent" / "draft")
    draft.write(b"bytes")
    assert not draft.holds(HEAD + b"bytes")
    draft.discard()
    assert draft.getvalue() == b"bytes"
