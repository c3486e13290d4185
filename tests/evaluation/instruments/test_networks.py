"""Encoders from folders: their scores are the formula's, and folders of something else are said."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from lsregen.evaluation.instruments.clip import Clip, crop, load_clip
from lsregen.evaluation.instruments.features import load_features
from lsregen.framework.errors import CheckpointError, ConfigError
from tests.evaluation import networks

PICTURE = networks.noise((80, 64), 90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return load_clip(folder, "cpu")


def cosine(folder: Path, picture: Image.Image, prompt: str) -> float:
    """By transformers alone."""
    network: Any = CLIPModel.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)(prompt, truncation=True, max_length=16, return_tensors="pt")
    pixels = AutoImageProcessor.from_pretrained(folder)(images=[picture], return_tensors="pt")
    with torch.no_grad():
        found = network(input_ids=words["input_ids"], attention_mask=words["attention_mask"], **pixels)
    return float((found.image_embeds * found.text_embeds).sum())


def test_the_score_is_the_cosine_times_a_hundred_and_never_below_zero(clip: Clip, folder: Path) -> None:
    prompts = ["a photo of a cat", "red circle", "blue square and dog", "a", "dog dog dog"]
    wanted = [100 * max(0.0, cosine(folder, PICTURE, prompt)) for prompt in prompts]
    assert [clip.score(PICTURE, prompt) for prompt in prompts] == pytest.approx(wanted, abs=1e-3)
    assert max(wanted) > 0


def test_long_prompts_are_cut_and_keep_their_end(clip: Clip, folder: Path) -> None:
    long = "cat " * 40
    assert clip.is_cut(long)
    assert not clip.is_cut("a cat")
    assert clip.score(PICTURE, long) == pytest.approx(100 * max(0.0, cosine(folder, PICTURE, long)), abs=1e-3)


def test_the_nearest_text_has_the_largest_cosine(clip: Clip, folder: Path) -> None:
    texts = ["red circle", "blue square", "a photo of a dog", "cat"]
    assert clip.nearest(PICTURE, texts) == int(np.argmax([cosine(folder, PICTURE, text) for text in texts]))


def test_a_crop_stays_within_the_picture() -> None:
    assert crop(PICTURE, (0.25, 0.5, 0.5, 1.0)).size == (20, 32)
    assert crop(PICTURE, (-0.5, -0.5, 2.0, 2.0)).size == (80, 64)
    assert crop(PICTURE, (0.99, 0.99, 1.0, 1.0)).size == (8, 8)


def test_what_is_no_clip(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder with a config\.json; expected a folder of CLIP"):
        load_clip(tmp_path, "cpu")
    detector = networks.yolos(tmp_path / "yolos", ("cat",))
    with pytest.raises(CheckpointError, match=r"clip .*; expected a folder of CLIP"):
        load_clip(detector, "cpu")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_clip(tmp_path, "cpu")


def test_a_clip_without_its_vocabulary_is_refused(tmp_path: Path, folder: Path) -> None:
    for file in folder.iterdir():
        if not file.name.startswith(("tokenizer", "vocab", "merges", "special")):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=r"has no vocabulary, neither tokenizer\.json nor vocab\.json, merges\.txt"):
        load_clip(tmp_path, "cpu")


def test_an_encoders_folder_may_ask_for_plain_tuples(clip: Clip, folder: Path, tmp_path: Path) -> None:
    tuples = networks.in_tuples(folder, tmp_path)
    features = [load_features(str(each), "cpu")([PICTURE]) for each in (folder, tuples)]
    np.testing.assert_allclose(features[1], features[0], rtol=1e-5, atol=1e-6)
    assert load_clip(tuples, "cpu").score(PICTURE, "red circle") == pytest.approx(clip.score(PICTURE, "red circle"), abs=1e-3)


def test_features_of_an_encoder_are_each_pictures_own(folder: Path) -> None:
    network = load_features(str(folder), "cpu")
    pictures = [PICTURE, Image.new("RGB", (64, 64)), PICTURE]
    together = network(pictures)
    assert together.shape == (3, 16)
    assert np.allclose(together[0], together[2], rtol=1e-5, atol=1e-5)
    assert np.allclose(network([pictures[1]])[0], together[1], rtol=1e-5, atol=1e-5)
    assert not np.allclose(together[0], together[1], rtol=0.1, atol=0.1)
    assert set(network.sha256) >= {"model.safetensors", "preprocessor_config.json"}
    assert "shortest_edge 32" in network.resize


def test_features_of_the_shape_world_are_its_classifiers() -> None:
    from lsregen.evaluation.shapeworld.classifier import image_features

    assert np.allclose(load_features("shapeworld")([PICTURE]), image_features([PICTURE]), atol=1e-5)


def test_nothing_is_drawn_while_a_folder_is_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_clip(folder, "cpu")
    assert "Loading weights" not in capsys.readouterr().err


def test_a_detector_is_no_network_of_features(tmp_path: Path) -> None:
    """A DETR would load, and its first query would stand for the picture."""
    detector = networks.yolos(tmp_path, ("cat",))
    with pytest.raises(CheckpointError, match=r"--features .*: it holds a YolosForObjectDetection, a detector, .*; expected"):
        load_features(str(detector), "cpu")


def test_features_of_what_is_none(tmp_path: Path, folder: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(CheckpointError, match=r"features .*broken: cannot be loaded"):
        load_features(str(broken), "cpu")


class Wrong(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean()


def test_a_network_that_gives_no_features_is_said(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of torch advise against scripts
        torch.jit.script(Wrong()).save(str(tmp_path / "wrong.pt"))
    with pytest.raises(CheckpointError, match=r"fails on a picture \(CheckpointError: expected features \[1 d\]"):
        load_features(str(tmp_path / "wrong.pt"), "cpu")
