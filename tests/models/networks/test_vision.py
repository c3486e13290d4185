"""Images that GLIGEN is grounded on: beside diffusers, from the folder to the tokens and the prediction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lsregen.framework import CheckpointError, Layout, LayoutError, LoadOptions, Pipeline
from lsregen.framework.layout.regions import Box, Region
from lsregen.framework.types import Step
from lsregen.models import DiffusersFolder
from lsregen.models.runtime.grounding import SLOTS
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from tests.models.small_models import FAMILIES, unsettle, write_tokenizer

WHOLE, WIDTH = 2e-5, 32
STEP = Step(0, 10, 901, 0.1, 0.2)
TOWER = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8, "projection_dim": WIDTH,
}  # fmt: skip


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A narrow GLIGEN for text and images, saved by diffusers, and its pipeline."""
    import diffusers
    import transformers
    from diffusers.pipelines.stable_diffusion.clip_image_project_model import CLIPImageProjection

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("text-image")
    write_tokenizer(folder / "files")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "files")
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": len(tokenizer) - 2,
        "eos_token_id": len(tokenizer) - 1,
        "pad_token_id": 0,
    }
    family = FAMILIES["gligen"]
    prepare: Any = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    processor = prepare(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipe = diffusers.StableDiffusionGLIGENTextImagePipeline(
        vae=diffusers.AutoencoderKL(**family["vae"]),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**family["text"], **ids)),
        tokenizer=tokenizer,
        processor=transformers.CLIPProcessor(image_processor=processor, tokenizer=tokenizer),
        image_encoder=transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**TOWER)),
        image_project=CLIPImageProjection(hidden_size=WIDTH),
        unet=diffusers.UNet2DConditionModel(**{**family["unet"], "attention_type": "gated-text-image"}),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for module in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.image_encoder, pipe.image_project):
        unsettle(module)
        module.eval().requires_grad_(False)
    pipe.save_pretrained(folder / "model")
    return folder / "model", pipe


@pytest.fixture(scope="module")
def model(oracle: tuple[Path, Any]) -> LatentDiffusion:
    return load(oracle[0])


def load(folder: Path, **options: Any) -> LatentDiffusion:
    model = DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32", **options))
    assert isinstance(model, LatentDiffusion)
    return model


LAYOUT = Layout(
    (
        Region("red circle", Box(0.1, 0.2, 0.5, 0.6), image=picture(0, (48, 40))),
        Region("blue circle", Box(0.5, 0.25, 1, 1)),
        Region("circle", Box(0.0, 0.6, 0.3, 1), image=picture(1, (33, 90)).convert("L")),
    )
)
PROMPT = "a red circle and a blue circle"


def test_tokens_and_prediction(oracle: tuple[Path, Any], model: LatentDiffusion) -> None:
    pipe = oracle[1]
    told = pipe.get_cross_attention_kwargs_with_grounded(
        hidden_size=WIDTH,
        gligen_phrases=[region.phrase for region in LAYOUT.regions],
        gligen_images=[region.image for region in LAYOUT.regions],
        gligen_boxes=[region.box.xyxy for region in LAYOUT.regions if region.box is not None],
        input_phrases_mask=None,
        input_images_mask=None,
        repeat_batch=1,
        normalize_constant=28.7,
        max_objs=SLOTS,
        device="cpu",
    )
    assert told["image_masks"].sum() == 2
    assert model.grounder is not None
    tokens = model.grounder.tokens([LAYOUT])
    assert error(tokens, pipe.unet.position_net(**told)) <= WHOLE
    bound, z = model.bind([PROMPT], (), [LAYOUT], cfg=1.0, count=4), torch.randn(1, 4, 8, 8)
    context, _ = pipe.encode_prompt(PROMPT, "cpu", 1, False)
    theirs = pipe.unet(z, STEP.t, context, cross_attention_kwargs={"gligen": told}).sample
    assert error(bound.predict(z, STEP).eps, theirs) <= WHOLE
    plain = Layout(tuple(Region(region.phrase, region.box) for region in LAYOUT.regions))
    assert error(model.bind([PROMPT], (), [plain], cfg=1.0, count=4).predict(z, STEP).eps, theirs) > 1e-3


def test_a_picture_says_which_encoder_it_was_made_with(model: LatentDiffusion) -> None:
    parts = model.describe()["components"]
    assert parts["image_project"]["parameters"] == WIDTH**2
    assert [*parts["image_encoder"]["sha256"]] == ["model.safetensors"]


def test_an_image_for_a_model_that_sees_none(oracle: tuple[Path, Any], files: Path, oracles: Any) -> None:
    for path, said in (
        (oracles("sd1").folder, "sd1 is sd1, which is not grounded on images; leave the image out"),
        (oracles("gligen").folder, "gligen is gligen, which is not grounded on images"),
        (
            files / "gligen-text-image.safetensors",
            "gligen-text-image has no image_encoder; .* with its image_encoder and image_p",
        ),
    ):
        pipeline = Pipeline.load(path, device="cpu")
        with pytest.raises(LayoutError, match=f"region 'red circle' has an image, but {said}"):
            pipeline(PROMPT, layout=LAYOUT, guidance={}, steps=1)


def test_what_does_not_fit_together(oracle: tuple[Path, Any], tmp_path: Path) -> None:
    def changed(file: str, **changes: Any) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(oracle[0], folder)
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, **changes}))
        return folder

    with pytest.raises(CheckpointError, match=r"image_encoder/config.json: projection_dim is 16; expected 32, as wide as the im"):
        load(changed("image_encoder/config.json", projection_dim=16))
    with pytest.raises(CheckpointError, match=r"image_encoder/config.json: model_type is 'siglip'; expected 'clip_vision_model'"):
        load(changed("image_encoder/config.json", model_type="siglip"))
    folder = changed("model_index.json")
    (folder / "image_project" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"image_project: no diffusion_pytorch_model\.safetensors"):
        load(folder)
    without = changed("model_index.json", image_project=[None, None])
    assert load(without).grounder is not None


def test_a_layout_file_with_images_makes_a_picture(oracle: tuple[Path, Any], tmp_path: Path) -> None:
    from lsregen.framework import read_layouts

    region = {"phrase": "red circle", "box": [0.1, 0.2, 0.5, 0.6], "image": "red.png"}
    picture(0, (48, 40)).save(tmp_path / "red.png")
    (tmp_path / "layout.json").write_text(json.dumps({"prompt": PROMPT, "regions": [region]}))
    (item,) = read_layouts(tmp_path / "layout.json").items
    assert item.layout.regions == LAYOUT.regions[:1]
    pipeline = Pipeline.load(oracle[0], device="cpu", grounding=1.0)
    shown, plain = (
        pipeline(PROMPT, layout=layout, guidance={}, steps=2, seed=0).image
        for layout in (item.layout, Layout((Region("red circle", Box(0.1, 0.2, 0.5, 0.6)),)))
    )
    assert (np.asarray(shown) != np.asarray(plain)).any()
