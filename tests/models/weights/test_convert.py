"""Files written again as folders: ours and diffusers read them, a pickle runs nothing, and nothing is overwritten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lsregen.framework import CheckpointError, ConfigError, Layout, LoadOptions
from lsregen.framework.files import locked
from lsregen.models import CheckpointFile, DiffusersFolder
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.weights.convert import MARK, convert_file
from lsregen.models.weights.inspect import inspect_file, inspect_folder
from lsregen.samplers.ddim import DDIM
from tests.models.ldm_layout import State
from tests.models.narrow_files import FAMILIES
from tests.near import TRAJECTORY, near, relative

PROMPT, STEPS = "a red circle and a blue circle", 4
BOXES = {"red circle": (0.0, 0.0, 0.5, 0.5), "blue circle": (0.5, 0.5, 1.0, 1.0)}
PARTS = {"model.diffusion_model.": "model", "first_stage_model.": "autoencoder", "cond_stage_model.": "text_encoder"}


@pytest.fixture(scope="module")
def folders(files: Path) -> Path:
    """Every file as a folder."""
    for family in FAMILIES:
        assert convert_file(files / f"{family}.safetensors", files / "folders" / family) == ()
    return files / "folders"


def walk(model: LatentDiffusion, z: torch.Tensor, other: LatentDiffusion) -> torch.Tensor:
    """Where a model's steps lead. At each of its latents another model predicts the same."""
    layouts = (Layout.from_boxes(BOXES),)
    denoiser = model.bind([PROMPT], (), layouts, cfg=4.0, count=STEPS)
    ours, theirs = (each.bind([PROMPT], (), layouts, cfg=1.0, count=STEPS) for each in (model, other))
    for step in DDIM().schedule(model.noise_schedule, STEPS):
        # Of one branch: the weighted difference of two would magnify the rounding of both.
        assert near(theirs.predict(z, step).eps, ours.predict(z, step).eps)
        z = DDIM().step(z, denoiser.predict(z, step), step, None)
    return z


@pytest.mark.parametrize("family", FAMILIES)
def test_ours_from_the_file_and_diffusers_from_the_folder_walk_alike(files: Path, folders: Path, family: str) -> None:
    import diffusers

    single: Any = CheckpointFile().load(files / f"{family}.safetensors", LoadOptions(device="cpu", dtype="fp32"))
    folder: Any = DiffusersFolder().load(folders / family, LoadOptions(device="cpu", dtype="fp32"))
    # Four cells at the coarsest level: a norm of two values, as of one cell, divides by the difference of two that may be equal.
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    ours = walk(single, z, folder)
    assert (folder.describe()["family"], folder.describe()["prediction"]) == (family, single.describe()["prediction"])
    if family == "gligen-text-image":  # its pipeline asks for the images that stand in the boxes
        return
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(folders / family)
    pipe.set_progress_bar_config(disable=True)
    grounded = {"gligen_phrases": list(BOXES), "gligen_boxes": list(BOXES.values())} if family == "gligen" else {}
    theirs = pipe(
        PROMPT, height=128, width=128, latents=z, num_inference_steps=STEPS, guidance_scale=4.0, output_type="latent", **grounded
    ).images
    assert relative(ours, theirs) <= TRAJECTORY
    image = torch.rand(1, 3, 64, 64)
    assert near(single.decode(z), (pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1))
    mean = pipe.vae.encode(image * 2 - 1).latent_dist.mean * pipe.vae.config.scaling_factor
    assert near(single.encode_image(image), mean)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_told_of_files_and_folders(files: Path, folders: Path, family: str) -> None:
    file, folder = inspect_file(files / f"{family}.safetensors"), inspect_folder(folders / family)
    assert file.loads
    assert folder.loads
    assert file.form == "a single file"
    assert folder.form == "a folder of diffusers"
    assert file.family == folder.family == family
    assert file.prediction == folder.prediction == ("v_prediction" if family == "sd2" else "epsilon")
    assert file.learnt["prediction"] == str(files / f"{family}.yaml")
    model: Any = DiffusersFolder().load(folders / family, LoadOptions(device="cpu", dtype="fp32"))
    expected = {name: part["parameters"] for name, part in model.describe()["components"].items()}
    for found in (file, folder):
        assert {part.name: part.parameters for part in found.components} == expected
        assert {part.dtypes for part in found.components} == {("F32",)}
    assert file.components[0].naming == "LDM"
    assert folder.components[0].naming == "diffusers"


def gligen_bin(files: Path, path: Path, **extra: object) -> Path:
    """A file as GLIGEN's own, each network apart."""
    parts: dict[str, State] = {part: {} for part in PARTS.values()}
    for key, tensor in load_file(files / "gligen.safetensors").items():
        prefix = next(prefix for prefix in PARTS if key.startswith(prefix))
        parts[PARTS[prefix]][key.removeprefix(prefix)] = tensor
    torch.save({**parts, "diffusion": {"betas": torch.ones(3)}, "iters": 5, **extra}, path)
    return path


def test_gligens_own_file(files: Path, folders: Path, tmp_path: Path) -> None:
    path = gligen_bin(files, tmp_path / "model.bin")
    told = inspect_file(path)
    assert (told.family, told.loads) == ("gligen", False)
    assert told.form == "a pickle, read without running what is in it"
    assert f"lsregen convert {path} {tmp_path / 'model'}" in str(told.refusal)
    todo = convert_file(path, tmp_path / "out")
    assert len(todo) == 1
    assert f"into {tmp_path / 'out' / 'tokenizer'}" in todo[0]
    assert not inspect_folder(tmp_path / "out").loads
    for name in ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"):
        ours, expected = load_file(tmp_path / "out" / name), load_file(folders / "gligen" / name)
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[key], expected[key]) for key in ours)
    (tmp_path / "tokenizer").symlink_to(files / "tokenizer")
    assert convert_file(path, tmp_path / "whole") == ()
    assert inspect_folder(tmp_path / "whole").loads


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_make_a_file_makes_none(files: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = gligen_bin(files, tmp_path / "model.bin", opt=Attack(made))
    for read in (inspect_file, lambda path: convert_file(path, tmp_path / "out")):
        with pytest.raises(CheckpointError, match=r"refused, it calls for .*system.*nothing was run"):
            read(path)
    assert not made.exists()
    assert not (tmp_path / "out").exists()


def test_parts_alone(files: Path, tmp_path: Path) -> None:
    told = inspect_file(files / "vae.safetensors")
    assert (told.family, told.form, told.loads) == ("autoencoder", "one network alone", False)
    assert str(told.refusal).endswith("not a whole model; give it to a model with --vae")
    assert convert_file(files / "vae.safetensors", tmp_path / "vae") == ()
    model: Any = CheckpointFile().load(files / "sd1.safetensors", LoadOptions(device="cpu", dtype="fp32", vae=tmp_path / "vae"))
    same: Any = CheckpointFile().load(
        files / "sd1.safetensors", LoadOptions(device="cpu", dtype="fp32", vae=files / "vae.safetensors")
    )
    assert torch.equal(model.autoencoder.decoder.conv_in.weight, same.autoencoder.decoder.conv_in.weight)


def test_nothing_is_overwritten_and_nothing_half_done_is_left(files: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already, and would be overwritten"):
        convert_file(files / "sd1.safetensors", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    with pytest.raises(CheckpointError, match="exists already"):
        convert_file(files / "sd1.safetensors", tmp_path / "out" / "mine.txt")
    (tmp_path / "empty").mkdir()
    convert_file(files / "vae.safetensors", tmp_path / "empty")
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "out"]


@pytest.mark.parametrize("name", ["", "..", "link"])
def test_what_is_no_name_of_a_new_folder_is_refused(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    empty = tmp_path / "here" / "empty"
    empty.mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to("empty")
    monkeypatch.chdir(empty.parent if name else empty)
    with pytest.raises(CheckpointError, match="folder"):
        convert_file(files / "vae.safetensors", Path(name))
    assert not list(tmp_path.rglob("*.unfinished"))
    assert not list(empty.iterdir())


def test_a_folder_of_somebody_elses_is_left_alone(files: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "mine.unfinished"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("precious")
    for source in (files / "sd1.safetensors", tmp_path / "absent.safetensors"):
        with pytest.raises(CheckpointError):
            convert_file(source, tmp_path / "mine")
        assert (theirs / "thesis.txt").read_text() == "precious"
    with pytest.raises(CheckpointError, match=r"mine\.unfinished: .*not made by lsregen"):
        convert_file(files / "sd1.safetensors", tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.unfinished"]


def test_what_a_killed_process_left_is_removed_once_the_input_is_understood(files: Path, tmp_path: Path) -> None:
    left = tmp_path / "out.unfinished"
    (left / "unet").mkdir(parents=True)
    (left / "unet" / "config.json").write_text("{}")
    (left / "stray").symlink_to(files)
    (left / MARK).touch()
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError):
        convert_file(tmp_path / "bad.safetensors", tmp_path / "out")
    assert (left / "unet" / "config.json").exists()
    convert_file(files / "vae.safetensors", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert not left.exists()
    assert (files / "sd1.safetensors").exists()


def test_two_at_once(files: Path, tmp_path: Path) -> None:
    (tmp_path / "out.unfinished").mkdir()
    with locked(tmp_path / "out.unfinished" / MARK, "mine"), pytest.raises(ConfigError, match="another lsregen convert"):
        convert_file(files / "vae.safetensors", tmp_path / "out")
    assert (tmp_path / "out.unfinished" / MARK).exists()


@pytest.mark.parametrize("room", [0, 100, 20_000])
def test_a_disk_without_room_is_one_error_and_leaves_nothing(files: Path, tmp_path: Path, room: int) -> None:
    """As where the disk is full, a file may have so many bytes and no more."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "tokenizer").symlink_to(files / "tokenizer")
    for source in (files / "vae.safetensors", files / "sd1.safetensors"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(CheckpointError, match=r"out: cannot be written \(") as caught:
                convert_file(source, tmp_path / "new" / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "\n" not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_foreign_keys_are_counted_and_left_out(files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    beside = {"bundle_emb.cat.string_to_param.*": torch.zeros(2, 12), "embedding_manager.embedder.x": torch.zeros(1)}
    path = without(files, tmp_path / "model.safetensors", **beside)
    (tmp_path / "tokenizer").symlink_to(files / "tokenizer")
    told = inspect_file(path)
    assert told.loads
    assert "2 keys" in " ".join(told.notes)
    with caplog.at_level("WARNING"):
        convert_file(path, tmp_path / "out")
        model: Any = CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32"))
    assert [("2 keys" in record.getMessage()) for record in caplog.records] == [True, True]
    plain: Any = CheckpointFile().load(files / "sd1.safetensors", LoadOptions(device="cpu", dtype="fp32"))
    for name, weight in plain.unet.state_dict().items():
        assert torch.equal(model.unet.state_dict()[name], weight)


def without(files: Path, path: Path, *starts: str, **more: torch.Tensor) -> Path:
    tensors = {key: tensor for key, tensor in load_file(files / "sd1.safetensors").items() if not key.startswith(starts)}
    save_file({**tensors, **more}, path)
    return path


def test_what_is_missing(files: Path, tmp_path: Path) -> None:
    path = without(files, tmp_path / "model.safetensors", "first_stage_model.")
    told = inspect_file(path)
    assert told.missing[0] == "vae"
    assert told.missing[1].startswith("a single file holds no tokenizer")
    with pytest.raises(CheckpointError, match="Stable Diffusion 1 without its vae; expected a whole model"):
        convert_file(path, tmp_path / "out")
    sd2 = tmp_path / "sd2.safetensors"
    save_file(load_file(files / "sd2.safetensors"), sd2)
    assert "what it predicts: pass prediction_type" in " ".join(inspect_file(sd2).missing)
    stranger = without(files, tmp_path / "more.safetensors", **{"first_stage_model.a.weight": torch.ones(1)})
    assert "first_stage_model.a.weight" in str(inspect_file(stranger).refusal)


def test_folders_with_something_wrong(folders: Path, tmp_path: Path) -> None:
    import shutil

    def changed(name: str) -> Path:
        return Path(shutil.copytree(folders / "sd1", tmp_path / name))

    folder = changed("shardless")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    told = inspect_folder(folder)
    assert (told.family, told.loads) == ("sd1", False)
    assert "no diffusion_pytorch_model.safetensors" in told.missing[0]
    folder = changed("silent")
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    assert inspect_folder(folder).learnt["prediction"].endswith("which does not say, and so means this")
    folder = changed("wordless")
    shutil.rmtree(folder / "tokenizer")
    assert "no tokenizer; expected tokenizer.json" in str(inspect_folder(folder).refusal)
    for name, part, values in (
        ("inpaint", "unet", {"in_channels": 9}),
        ("statistics", "vae", {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}),
        ("wide", "text_encoder", {"hidden_size": 128}),
    ):
        folder = changed(name)
        path = folder / part / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        with pytest.raises(CheckpointError) as caught:
            DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
        assert inspect_folder(folder).refusal == str(caught.value)  # what would be said on loading, without loading
    folder = changed("other")
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer"]}')
    told = inspect_folder(folder)
    assert "component transformer (FluxTransformer), which is not supported" in str(told.refusal)
