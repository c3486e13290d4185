"""Soft segments from logits made by hand, and from a segmentation model with random weights."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from lsregen.distances.cross_entropy import CrossEntropy
from lsregen.evaluation.shapeworld import masks, render, sample_scene
from lsregen.extractors.segmentation import Segmentation
from lsregen.extractors.segmenter import MEAN, STD, load_segmenter
from lsregen.framework.errors import CheckpointError, ConfigError, PhraseError
from lsregen.framework.layout.rasters import rasterise
from lsregen.framework.layout.regions import Box, Layout, Region
from lsregen.framework.sampling.taps import Taps
from lsregen.framework.testing import check_extractor
from lsregen.framework.testing.checks import seeded
from lsregen.framework.types import Prediction, View
from tests.extractors.stand_ins import LAYERS, STEP, Prompted, logits, look, phrases
from tests.near import near
from tests.toys import draw, make_run

CLASSES = ("background", "circle", "square", "traffic light")


def shares(given: dict[str, Tensor], names: Sequence[str], grid: tuple[int, int]) -> Tensor:
    """Softmax over the tokens of every layer and head at one grid, `[b views t h w]`."""
    views = [given[name][:, head] for name in names for head in range(given[name].shape[1])]
    return torch.stack([F.interpolate(view, grid, mode="bilinear").softmax(dim=1) for view in views], dim=1)


# ---- cross-attention ----


def test_segments_are_the_sums_of_a_phrases_tokens_averaged_over_layers_and_heads_on_the_finest_grid() -> None:
    given = logits(2)
    prompts, layouts = ["a big elephant", "a hat"], [phrases("big elephant", "a"), phrases("hat")]
    current, target, _ = look(Segmentation(layers=("all",)), prompts, layouts, given)
    wanted = shares(given, [layer.name for layer in LAYERS], (4, 6)).mean(dim=1)
    assert current.kind == "probability"
    assert current.maps[0].shape == (2, 1, 2, 4, 6)
    assert torch.allclose(current.maps[0][0, 0, 0], wanted[0, 2:5].sum(dim=0), atol=1e-6)
    assert torch.allclose(current.maps[0][0, 0, 1], wanted[0, 1], atol=1e-6)
    assert torch.allclose(current.maps[0][1, 0, 0], wanted[1, 2], atol=1e-6)
    assert current.present.tolist() == [[True, True], [True, False]]
    assert current.group.tolist() == [[0, 1], [0, 1]]
    assert target is None  # nobody has a place


def test_what_phrases_do_not_take_is_left_to_the_rest() -> None:
    current, _, _ = look(Segmentation(layers=("mid",)), ["a red ball and a hat"], [phrases("red ball", "hat")], logits(1))
    rest = 1 - current.maps[0].sum(dim=2)
    assert float(rest.min()) > 0
    everything, _, _ = look(
        Segmentation(layers=("mid",), drop="specials"), ["red ball hat"], [phrases("red ball", "hat")], logits(1)
    )
    assert torch.allclose(everything.maps[0].sum(dim=2), torch.ones(1, 1, 2, 3))


@pytest.mark.parametrize(("drop", "kept"), [("ends", slice(1, 11)), ("specials", slice(1, 4))])
def test_dropped_tokens_take_no_part_in_the_softmax(drop: str, kept: slice) -> None:
    given = logits(1)
    current, _, _ = look(Segmentation(layers=("mid",), drop=drop, words="last"), ["a red ball"], [phrases("red ball")], given)
    soft = given["mid_block"][:, :, kept].softmax(dim=2).mean(dim=1)
    assert torch.allclose(current.maps[0][0, 0, 0], soft[0, 2], atol=1e-6)


def test_the_best_maps_are_those_of_the_largest_contrast_for_each_phrase() -> None:
    given = logits(1)
    options = Segmentation(layers=("grid:coarsest",), best=2)
    current, _, _ = look(options, ["a red ball and a hat"], [phrases("red ball", "hat")], given)
    every = shares(given, ["down_blocks.1", "up_blocks.0"], (4, 6))[0].numpy()  # [views t h w]
    for place, tokens in enumerate(([2, 3], [6])):
        maps = every[:, tokens].sum(axis=1)
        contrast = [np.quantile(m, 0.99) * (1 - np.quantile(m, 0.01)) for m in maps]
        best = sorted(range(len(maps)), key=lambda i: -contrast[i])[:2]
        assert np.allclose(current.maps[0][0, 0, place].numpy(), maps[best].mean(axis=0), atol=1e-6)
    more, _, _ = look(Segmentation(best=99), ["a hat"], [phrases("hat")], given)
    every_map, _, _ = look(Segmentation(), ["a hat"], [phrases("hat")], given)
    assert near(more.maps[0], every_map.maps[0])


def test_the_target_is_boxes_and_masks_on_the_grid_of_the_segments() -> None:
    left = Box(0.0, 0.0, 0.4, 0.5)
    layout = Layout((Region("red ball", left), Region("hat", mask=torch.tensor([[0.0, 1.0]])), Region("a#1")))
    current, target, _ = look(Segmentation(layers=("all",)), ["a red ball and a hat"], [layout], logits(1))
    assert target is not None
    assert target.maps[0].shape == current.maps[0].shape
    assert torch.equal(target.maps[0][0, 0, 0], rasterise(left, (4, 6)))
    assert near(target.maps[0][0, 0, 1], (torch.arange(6) >= 3).float().expand(4, 6))
    assert target.present.tolist() == [[True, True, False]]
    assert bool(torch.isfinite(CrossEntropy()(current, target).value).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": "end"}, "drop: 'end'.*did you mean 'ends'"),
        ({"words": "first"}, "words: 'first'"),
        ({"layers": ()}, "layers: \\(\\) is empty"),
        ({"best": -1}, "best: -1"),
        ({"labels": {"a": "b"}}, "labels: .*none is given; set model too"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Segmentation(**options)


# ---- a model ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SegFormer of a few thousand random weights."""
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8,
        id2label=dict(enumerate(CLASSES)), label2id={name: i for i, name in enumerate(CLASSES)},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("segformer")
    with seeded(0):
        network = SegformerForSemanticSegmentation(config)
        for weights in network.parameters():  # large enough for pictures to matter
            torch.nn.init.normal_(weights, std=0.3)
    network.save_pretrained(path, safe_serialization=True)
    return path


def test_a_model_conforms(folder: Path) -> None:
    check_extractor(Segmentation(model=str(folder)))


def test_a_phrase_has_the_share_of_its_class_in_the_decoded_picture(folder: Path) -> None:
    extractor = Segmentation(model=str(folder), labels={"thing": "traffic light"})
    assert extractor.needs.image
    assert not extractor.needs.taps
    layouts = [Layout((Region("red circle", Box(0.0, 0.0, 0.5, 1.0)), Region("thing")))]
    run = make_run(Prompted(["a red circle and a thing"]), torch.zeros(1, 3, 8, 12), layouts=layouts)
    state = extractor.prepare(run, "area")
    picture = torch.sigmoid(draw(3, 1, 3, 32, 64))
    view = View(run.z_T, STEP, Taps(()), (), Prediction(run.z_T, run.z_T), lambda _: picture)
    current, target = extractor.current(view, state), extractor.target(view, state)
    network = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        wanted = network(pixel_values=(picture - mean) / std).logits
        wanted = F.interpolate(wanted, (8, 12), mode="bilinear", antialias=True).softmax(dim=1)
    assert torch.allclose(current.maps[0][0, 0], wanted[0, [1, 3]], atol=1e-5)
    assert target is not None
    assert target.present.tolist() == [[True, False]]
    assert torch.equal(target.maps[0][0, 0, 0], rasterise(Box(0.0, 0.0, 0.5, 1.0), (8, 12)))


def test_phrases_of_one_class_are_pulled_to_their_places_together(folder: Path) -> None:
    extractor = Segmentation(model=str(folder))
    boxes = Box(0.0, 0.0, 0.5, 0.5), Box(0.5, 0.5, 1.0, 1.0)
    layout = Layout(
        (Region("red circle", boxes[0]), Region("blue circle", boxes[1]), Region("a square", Box(0.5, 0.0, 1.0, 0.5)))
    )
    run = make_run(Prompted(["a red circle and a blue circle and a square"]), torch.zeros(1, 3, 8, 12), layouts=[layout])
    target = extractor.target(View(run.z_T, STEP, Taps(())), extractor.prepare(run, "area"))
    assert target is not None
    both = rasterise(boxes[0], (8, 12)) + rasterise(boxes[1], (8, 12))
    assert torch.equal(target.maps[0][0, 0, :2], both.expand(2, 8, 12))
    assert torch.equal(target.maps[0][0, 0, 2], rasterise(Box(0.5, 0.0, 1.0, 0.5), (8, 12)))


def test_pictures_are_scaled_and_normalised_as_the_folder_says(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    device = torch.device("cpu")
    assert load_segmenter(str(tmp_path), device).short == 0
    settings = {"size": {"height": 96, "width": 96}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    segmenter = load_segmenter(str(tmp_path), device)
    assert (segmenter.short, segmenter.mean, segmenter.std) == (96, (0.5,) * 3, (0.25,) * 3)
    assert segmenter(torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))).shape == (1, 4, 24, 48)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"do_normalize": False, "image_mean": None, "size": {"height": None, "shortest_edge": 64}})
    )
    del segmenter  # nobody uses the one of the old settings any more
    segmenter = load_segmenter(str(tmp_path), device)
    assert (segmenter.short, segmenter.mean, segmenter.std) == (64, (0.0,) * 3, (1.0,) * 3)


def test_a_model_leaves_the_device_with_who_uses_it(folder: Path) -> None:
    layout = Layout((Region("red circle", Box(0.0, 0.0, 0.5, 0.5)),))
    run = make_run(Prompted(["a red circle"]), torch.zeros(1, 3, 8, 8), layouts=[layout])
    terms = [Segmentation(model=str(folder)).prepare(run, "area") for _ in range(2)]
    assert terms[0].segmenter is terms[1].segmenter  # shared within a run
    assert terms[0].segmenter is not None
    network = weakref.ref(terms[0].segmenter.network)
    terms.clear()
    gc.collect()
    assert network() is None


@pytest.mark.parametrize(
    "content",
    [
        "[]", "[" * 100_000, "{", '{"image_mean": "grey"}', '{"size": [1]}', '{"size": 1000000000}', '{"size": -4}',
        '{"size": {"shortest_edge": "a"}}', '{"image_mean": [0.5]}', '{"image_mean": [NaN, 0, 0]}', '{"image_std": [1, 0, 1]}',
    ],
)  # fmt: skip
def test_settings_of_pictures_that_cannot_be_used(folder: Path, tmp_path: Path, content: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        load_segmenter(str(tmp_path), torch.device("cpu"))


@pytest.mark.parametrize("name", ["x" * 5000, "\0", "/dev/zero"])
def test_names_that_no_folder_has(name: str) -> None:
    with pytest.raises(ConfigError, match="no folder with a config"):
        load_segmenter(name, torch.device("cpu"))


@pytest.mark.parametrize(
    ("phrase", "label"),
    [("circle", 1), ("large Circle", 1), ("circle#2", 1), ("a traffic light", 3), ("light", None), ("circles", None)],
)
def test_a_phrase_has_the_label_that_it_ends_in(folder: Path, phrase: str, label: int | None) -> None:
    segmenter = load_segmenter(str(folder), torch.device("cpu"))
    if label is not None:
        assert segmenter.class_of(phrase, {}) == label
        return
    with pytest.raises(PhraseError, match=rf"phrase '{phrase}'.*its labels: background, circle, square, traffic light"):
        segmenter.class_of(phrase, {})


def test_a_label_that_the_model_lacks_is_refused_with_those_it_has(folder: Path) -> None:
    segmenter = load_segmenter(str(folder), torch.device("cpu"))
    with pytest.raises(PhraseError, match=r"label 'squares' for phrase 'box'.*did you mean 'square'.*its labels: background"):
        segmenter.class_of("box", {"box": "squares"})


def test_what_is_no_such_model_is_refused(tmp_path: Path) -> None:
    device = torch.device("cpu")
    with pytest.raises(ConfigError, match=r"model '.*nowhere': no folder with a config.json"):
        load_segmenter(str(tmp_path / "nowhere"), device)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_segmenter(str(tmp_path), device)
    (tmp_path / "config.json").write_text('{"architectures": ["YolosForObjectDetection"]}')
    with pytest.raises(ConfigError, match=r"it holds a YolosForObjectDetection; expected a .* for semantic segmentation"):
        load_segmenter(str(tmp_path), device)


def test_the_segmenter_that_ships_knows_this_world(capsys: pytest.CaptureFixture[str]) -> None:
    """On true images of held-out scenes every object's class takes most of its mask."""
    segmenter = load_segmenter("shapeworld-segmenter", torch.device("cpu"))
    assert len(segmenter.labels) == 37
    assert capsys.readouterr().err == "", "no bar of transformers"
    with pytest.raises(PhraseError, match="phrase 'cat': the model shapeworld-segmenter knows no such class"):
        segmenter.class_of("cat", {})
    scenes = [sample_scene(seed, split="eval", objects=2, size=(64, 64)) for seed in range(8)]
    pictures = torch.stack([torch.from_numpy(render(scene)) for scene in scenes])
    found = segmenter(rearrange(pictures, "b h w c -> b c h w").float() / 255).argmax(dim=1)
    seen = torch.nn.functional.interpolate(found[:, None].float(), (64, 64), mode="nearest")[:, 0].long()
    overlaps: list[float] = []
    for scene, classes in zip(scenes, seen, strict=True):
        for phrase, mask in zip(scene.phrases, masks(scene), strict=True):
            ours, true = classes == segmenter.class_of(phrase, {}), torch.from_numpy(mask)
            overlaps.append(float((ours & true).sum() / (ours | true).sum()))
    assert sum(overlaps) / len(overlaps) > 0.75
    assert min(overlaps) > 0.3
