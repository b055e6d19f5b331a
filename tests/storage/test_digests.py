"""Digests of files and folders, and the cache of those of large files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from attrib_core.common import hashing
from attrib_core.common.errors import InputError
from attrib_core.storage import digests


def test_digests_of_large_files_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CACHED_FROM", 3)
    monkeypatch.setenv(digests.CACHE, str(tmp_path / "cache"))
    (tmp_path / "small").write_text("ab")
    (tmp_path / "large").write_text("abcd")
    expected = {name: hashing.file_digest(tmp_path / name) for name in ("small", "large")}
    reads: list[Path] = []
    real = hashing.file_digest
    monkeypatch.setattr(digests.hashing, "file_digest", lambda path: reads.append(path) or real(path))
    for _ in range(2):
        digests._of_state.cache_clear()  # as another process would
        assert {name: digests.of_file(tmp_path / name) for name in expected} == expected
    assert [path.name for path in reads] == ["small", "large", "small"]
    (tmp_path / "large").write_text("efgh")
    os.utime(tmp_path / "large", ns=(1, 1))
    assert digests.of_file(tmp_path / "large") != expected["large"]
    for entry in (tmp_path / "cache").iterdir():
        entry.write_text(json.dumps({"state": "other"}))
    digests._of_state.cache_clear()
    assert digests.of_file(tmp_path / "large") == real(tmp_path / "large")


def test_a_digest_that_cannot_be_cached_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("abcd")
    monkeypatch.setattr(digests, "CACHED_FROM", 0)
    monkeypatch.setenv(digests.CACHE, str(tmp_path / "file" / "below"))
    assert digests.of_file(tmp_path / "file") == hashing.file_digest(tmp_path / "file")
    with pytest.raises(InputError, match="nothing"):
        digests.of_file_or_folder(tmp_path / "nothing")


def test_a_folder_is_digested_by_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("1")
    assert digests.of_file_or_folder(tmp_path / "x") == hashing.folder_digest(tmp_path / "x")
