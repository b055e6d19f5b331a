"""Models by name from the cache of huggingface_hub, of which a small one is written here."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants, scan_cache_dir

from attrib_core.cli.main import main
from attrib_core.common import families, hub_cache
from attrib_core.common.errors import InputError
from attrib_core.diffusion.pipeline import components, description
from tests.diffusion import diffusion_fixtures as made

NAME = "somebody/tiny-diffusion"
FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits of one model: contents in blobs, links to them in snapshots, names of commits in refs."""
    model = tmp_path / "cache" / f"models--{NAME.replace('/', '--')}"
    for commit in (FIRST, SECOND):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder)
            blob = model / "blobs" / name.as_posix().replace("/", "-")
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, blob)
            link = model / "snapshots" / commit / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(SECOND)
    (model / "refs" / "v1").write_text(FIRST)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return model


def test_huggingface_hub_reads_the_cache_of_these_tests(cache: Path) -> None:
    (found,) = scan_cache_dir(cache.parent).repos
    assert found.repo_id == NAME and {one.commit_hash for one in found.revisions} == {FIRST, SECOND}


def test_a_snapshot_by_commit_tag_and_main(cache: Path) -> None:
    for revision, commit in ((FIRST, FIRST), ("v1", FIRST), ("main", SECOND), (None, SECOND)):
        found = hub_cache.snapshot(NAME, revision, "model_index.json")
        assert found == hub_cache.Snapshot(cache / "snapshots" / commit, commit)
    assert hub_cache.snapshot(NAME, FIRST, "unet/config.json").path == cache / "snapshots" / FIRST


def test_the_commit_is_the_fingerprint_and_the_model_loads(
    cache: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pinned = families.load("base_models", "hub", {"name": NAME, "revision": FIRST})
    assert not caplog.records
    assert pinned.fingerprint == FIRST and pinned.path == cache / "snapshots" / FIRST
    with caplog.at_level(logging.WARNING):
        base = families.load("base_models", "hub", {"name": NAME})
    assert base.fingerprint == SECOND
    assert f"main of {NAME} is commit {SECOND} in the cache" in caplog.text
    listed = families.module("base_models", "hub").files(name=NAME, revision=FIRST)
    assert len(listed) == sum(path.is_file() for path in folder.rglob("*"))
    first, second = (components.load(one, "cpu") for one in (pinned, description.describe(folder)))
    for key, value in first.unet.state_dict().items():
        assert value.equal(second.unet.state_dict()[key])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "somebody/other"}, "name: 'somebody/other' is not in {cache}, or lacks model_index.json; fetch"),
        ({"name": NAME, "revision": "c" * 40}, "name: revision '" + "c" * 40 + "' of '" + NAME + "' is not in {cache}"),
        ({"name": NAME, "revision": "c" * 40}, f"`hf download {NAME} --revision {'c' * 40}` and copy that cache here"),
        ({"name": "somebody/other"}, "`hf download somebody/other --local-dir FOLDER` and open that by 'family: f"),
        ({"name": "a/b/c"}, "name: 'a/b/c' is no name of the hub, expected one like 'owner/model'"),
    ],
)  # fmt: skip
def test_missing_models_and_invalid_names(cache: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        families.load("base_models", "hub", options)
    assert message.format(cache=cache.parent) in str(caught.value) and "\n" not in str(caught.value)


def test_an_incomplete_snapshot(cache: Path) -> None:
    vae = cache / "snapshots" / FIRST / "vae"
    for weights in vae.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(InputError) as caught:
        families.load("base_models", "hub", {"name": NAME, "revision": FIRST})
    assert f"{vae}/diffusion_pytorch_model.safetensors: no such file" in str(caught.value)
    assert f"`hf download {NAME} --revision {FIRST}`" in str(caught.value)


def test_a_shard_that_is_missing(cache: Path) -> None:
    unet = cache / "snapshots" / SECOND / "unet"
    index = '{"weight_map": {"a": "diffusion_pytorch_model-00002-of-00002.safetensors"}}'
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match="-00002-of-00002.safetensors: no such file, but .* names it"):
        families.load("base_models", "hub", {"name": NAME})


def test_check_reports_what_to_download(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("base_model: {family: hub, name: somebody/other}\n")
    assert main(["check", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: base_model: name: 'somebody/other' is not in") and error.count("\n") == 1
