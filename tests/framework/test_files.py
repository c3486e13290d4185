"""What is at a path, reading within limits, and writing whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsregen.framework import files
from lsregen.framework.errors import CheckpointError, ConfigError
from lsregen.framework.files import (
    MOST_LEVELS,
    locked,
    look,
    most_of_a_file,
    parse_json,
    read_bytes,
    read_json,
    too_deep,
    write_whole,
)


def test_whatever_a_path_is_it_can_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    expected = {
        "file": "file",
        "link": "file",
        "broken": "nothing",
        "pipe": "pipe",
        "absent": "nothing",
        "x" * 300: "nothing",
        "a\0b": "nothing",
        "file/x": "nothing",
    }
    assert {name: look(tmp_path / name).kind for name in expected} == expected
    assert look(tmp_path).kind == "folder"
    assert look("/dev/zero").kind == "device"
    assert "nowhere" in look(tmp_path / "broken").said


@pytest.mark.parametrize("name", ["absent", "x" * 300, "a\0b", ".", "/dev/zero"])
def test_what_is_no_file_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="expected a plan"):
        read_bytes(tmp_path / name, "a plan", CheckpointError)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match="larger than 1,000 bytes"):
        read_bytes(path, "a plan", most=1000)


def test_a_file_is_read_however_long_and_a_pipe_only_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    long = tmp_path / "long"
    long.write_bytes(b"x" * 5000)
    assert read_bytes(long, "a plan") == b"x" * 5000
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for length in (0, 1, 1000, 1001, 5000):
        writer = Thread(target=pipe.write_bytes, args=(b"x" * length,))
        writer.start()
        if length <= 1000:
            assert read_bytes(pipe, "a plan") == b"x" * length
        else:
            with pytest.raises(ConfigError, match=r"pipe: larger than 1,000 bytes"):
                read_bytes(pipe, "a plan")
        writer.join()


def test_a_file_that_does_not_fit_into_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    monkeypatch.setattr(files, "most_of_a_file", lambda: 4000)
    for length in (3999, 4000, 4001):
        (tmp_path / "file").write_bytes(b"x" * length)
        if length <= 4000:
            assert len(read_bytes(tmp_path / "file", "a plan")) == length
        else:
            with pytest.raises(ConfigError, match=r"file: larger than 4,000 bytes"):
                read_bytes(tmp_path / "file", "a plan")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a system without such files")
def test_a_file_that_tells_no_size_is_read() -> None:
    assert b"VmRSS" in read_bytes(Path("/proc/self/status"), "a plan")
    assert most_of_a_file() > 2**20


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[" * 100_000, "nested"),
        ("[" * 200 + "]" * 200, "nested"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested"),
        ("{", "line 1"),
        ('{"a": 1, "a": 2}', "'a'"),
        ('["\\ud800"]', "half of a character"),
        ("1" * 10_000, "a whole number of more than 4,300 digits"),
    ],
)
def test_what_is_no_json_is_one_error_that_says_why(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.json") as caught:
        read_json(path, "a plan")
    assert named in str(caught.value)
    assert len(str(caught.value)) < 500


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_that_is_not_too_deep_is_read(data: object) -> None:
    assert parse_json(json.dumps(data), "here") == data


def test_levels_are_counted() -> None:
    data: object = 0
    for _ in range(MOST_LEVELS):
        data = [data]
    assert not too_deep(data)
    assert too_deep([data])
    assert too_deep({"a": {"b": []}}, 2)
    assert not too_deep({"a": {"b": 0}}, 2)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "made" / "x.txt"
    write_whole(path, [b"old"])

    def broken():
        yield b"new"
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(path, broken())
    assert path.read_bytes() == b"old"
    assert [each.name for each in path.parent.iterdir()] == ["x.txt"]


def test_a_disk_that_cannot_be_cleaned_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "x", [b"new"])


@pytest.mark.parametrize("call", ["open", "fsync"])
@pytest.mark.parametrize("number", ["EINVAL", "EPERM", "ENOTSUP", "EACCES", "EIO", "ENOSPC"])
def test_a_mount_that_cannot_sync_a_folder_fails_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: str
) -> None:
    code, real = getattr(errno, number), getattr(os, call)

    def refuse(given: Any, *flags: int) -> Any:
        folder = Path(given).is_dir() if call == "open" else stat.S_ISDIR(os.fstat(given).st_mode)
        if folder:
            raise OSError(code, os.strerror(code))
        return real(given, *flags)

    path = tmp_path / "made" / "x"
    path.parent.mkdir()
    monkeypatch.setattr(os, call, refuse)
    if number in ("EIO", "ENOSPC"):  # the disk's own
        with pytest.raises(OSError, match=os.strerror(code)):
            write_whole(path, [b"new"])
    else:
        write_whole(path, [b"new"])
        write_whole(tmp_path / "more" / "y", [b"new"])
    assert path.read_bytes() == b"new"


def test_a_lock_keeps_another_process_out_until_its_end(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom lsregen.framework.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'taken'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="taken"), locked(lock, "taken"):
            pass
        holder.kill()
        holder.wait()
        with locked(lock, "taken"):
            pass
