"""Content keys and seeds depend only on their parts."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from attrib_core.common import hashing


def test_digest_is_sha256_of_the_json():
    assert hashing.digest("a", 1, {"b": 2}) == hashlib.sha256(b'["a",1,{"b":2}]').hexdigest()


def test_digest_ignores_the_order_of_keys_but_not_of_parts():
    assert hashing.digest({"a": 1, "b": 2}) == hashing.digest({"b": 2, "a": 1})
    assert hashing.digest(1, 2) != hashing.digest(2, 1)
    assert hashing.digest([1, 2]) != hashing.digest(1, 2)
    assert hashing.digest("1") != hashing.digest(1)


def test_digest_rejects_values_that_json_cannot_represent(tmp_path):
    with pytest.raises(TypeError):
        hashing.digest(tmp_path)


def test_content_key_is_the_beginning_of_the_digest():
    assert hashing.content_key("x") == hashing.digest("x")[:20]


def test_seed_is_stable_between_releases_and_in_range():
    assert hashing.seed(2306, "object-001", 0) == int(hashing.digest(2306, "object-001", 0)[:16], 16) // 2
    seeds = [hashing.seed(2306, number) for number in range(2000)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_uniform():
    top_bits = np.array([hashing.seed("spread", number) for number in range(4000)]) / 2**63
    counts, _ = np.histogram(top_bits, bins=8, range=(0, 1))
    assert abs(counts - 500).max() < 5 * np.sqrt(500)


def test_generators_repeat_and_differ():
    first, again, other = hashing.generator(1, "a"), hashing.generator(1, "a"), hashing.generator(1, "b")
    draws = first.random(5)
    assert np.array_equal(draws, again.random(5))
    assert not np.array_equal(draws, other.random(5))


def test_file_digest_is_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "big"
    content = bytes(range(256)) * 5000
    path.write_bytes(content)
    assert hashing.file_digest(path) == hashlib.sha256(content).hexdigest()


def test_folder_digest_depends_on_names_and_bytes_only(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "deep").mkdir(parents=True)
    (tmp_path / "one" / "a").write_text("x")
    (tmp_path / "one" / "deep" / "b").write_text("y")
    (tmp_path / "two" / "deep" / "b").write_text("y")
    (tmp_path / "two" / "a").write_text("x")
    same = hashing.folder_digest(tmp_path / "one")
    assert hashing.folder_digest(tmp_path / "two") == same
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "c")
    assert hashing.folder_digest(tmp_path / "two") != same
    (tmp_path / "two" / "c").rename(tmp_path / "two" / "a")
    (tmp_path / "two" / "a").write_text("z")
    assert hashing.folder_digest(tmp_path / "two") != same
