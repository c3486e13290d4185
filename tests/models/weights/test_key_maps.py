"""Names of single files to ours: every weight of every family hit once, with its shape and values, in both directions."""

from __future__ import annotations

from typing import Any

import diffusers.loaders.single_file_utils as oracle
import pytest
import torch
from torch import Tensor

from lsregen.framework.errors import CheckpointError
from lsregen.models.weights.key_maps import KeyMap, Source, autoencoder_map, clip_map, is_harmless, open_clip_map, unet_map
from tests.models import ldm_layout as layout
from tests.models.ldm_layout import State, clip_keys, prefixed, shapes

pytestmark = pytest.mark.parity

FAMILIES = tuple(layout.UNETS)
UNET, VAE = "model.diffusion_model.", "first_stage_model."
# Of the full-size networks, counted where they were published.
COUNTS = {
    "sd1": (686, 859_520_964),
    "sd2": (686, 865_910_724),
    "sdxl": (1680, 2_567_463_684),
    "gligen": (966, 1_068_623_204),
    "gligen-text-image": (973, 1_069_707_108),
}


def loaded(keys: KeyMap, file: State) -> State:
    return {target: source.apply(file[source.key]) for target, source in keys.sources.items()}


def check(keys: KeyMap, file: State, expected: State) -> None:
    """Every weight is hit once, with its values; every key of the file is used."""
    assert not keys.unknown
    assert {source.key for source in keys.sources.values()} | set(keys.dropped) == set(file)
    found = loaded(keys, file)
    assert set(found) == set(expected)
    assert keys.shapes(shapes(file)) == shapes(expected)
    for key, tensor in expected.items():
        assert tensor.is_meta or torch.equal(found[key], tensor), key


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "full"])
def test_unet(family: str, narrow: bool) -> None:
    expected = layout.unet(family, narrow).state_dict()
    file = prefixed(UNET, layout.ldm_unet(expected))
    assert not any(key.removeprefix(UNET) in expected for key in file if "position_net." not in key)
    check(unet_map(file, UNET), file, expected)
    if not narrow:
        assert (len(expected), sum(tensor.numel() for tensor in expected.values())) == COUNTS[family]


@pytest.mark.parametrize("layers", [1, 3])
def test_unet_with_other_numbers_of_resnets(layers: int) -> None:
    expected = layout.unet("sd1", layers_per_block=layers).state_dict()
    file = layout.ldm_unet(expected, layers)
    check(unet_map(file), file, expected)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_unet_as_diffusers_reads_it(family: str) -> None:
    network = layout.unet(family)
    file = prefixed(UNET, layout.ldm_unet(network.state_dict()))
    check(unet_map(file, UNET), file, oracle.convert_ldm_unet_checkpoint(dict(file), network.config))


@pytest.mark.parametrize("family", ["sd1", "gligen"])
def test_unet_in_our_names(family: str) -> None:
    state = layout.unet(family).state_dict()
    check(unet_map(state), state, state)


def test_gligen_keeps_its_own_names() -> None:
    file = layout.ldm_unet(layout.unet("gligen").state_dict())
    fused = [key for key in file if ".fuser." in key]
    assert len(fused) == 17 * 16  # tensors of a fuser, in each of the transformers
    sources = unet_map(file).sources
    assert sources["position_net.null_positive_feature"] == Source("position_net.null_positive_feature")
    assert sources["down_blocks.0.attentions.0.transformer_blocks.0.fuser.alpha_attn"].key == (
        "input_blocks.1.1.transformer_blocks.0.fuser.alpha_attn"
    )


@pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "full"])
def test_autoencoder(narrow: bool) -> None:
    expected = layout.autoencoder(narrow).state_dict()
    file = prefixed(VAE, layout.ldm_autoencoder(expected))
    attention = file[f"{VAE}encoder.mid.attn_1.q.weight"]
    assert attention.shape[2:] == (1, 1)
    check(autoencoder_map(file, VAE), file, expected)
    if not narrow:
        assert (len(expected), sum(tensor.numel() for tensor in expected.values())) == (248, 83_653_863)


def test_autoencoder_as_diffusers_reads_it() -> None:
    network = layout.autoencoder()
    file = prefixed(VAE, layout.ldm_autoencoder(network.state_dict()))
    check(autoencoder_map(file, VAE), file, oracle.convert_ldm_vae_checkpoint(dict(file), network.config))


def test_autoencoder_in_our_names_and_their_older_form() -> None:
    expected = layout.autoencoder().state_dict()
    check(autoencoder_map(expected), expected, expected)
    old = layout.old_autoencoder(expected)
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in old
    check(autoencoder_map(old), old, expected)


@pytest.mark.parametrize("prefix", ["cond_stage_model.transformer.", "conditioner.embedders.0.transformer."])
def test_clip(prefix: str) -> None:
    expected = clip_keys(layout.tower(16, 2, vocabulary=32).state_dict())
    file = prefixed(prefix, expected)
    check(clip_map(file, prefix), file, expected)
    check(clip_map(file, prefix), file, oracle.convert_ldm_clip_checkpoint(file))
    flat = {key.replace("text_model.", ""): tensor for key, tensor in file.items()}
    assert set(flat).isdisjoint(file)
    check(clip_map(flat, prefix), flat, expected)


def test_a_projection_is_kept_where_it_is_wanted() -> None:
    file = clip_keys(layout.tower(16, 2, 12, vocabulary=32).state_dict())
    check(clip_map(file, projection=True), file, file)
    assert clip_map(file).dropped == ("text_projection.weight",)


@pytest.mark.parametrize("full", [False, True], ids=["narrow", "full"])
def test_open_clip_of_sdxl(full: bool) -> None:
    prefix = "conditioner.embedders.1.model."
    network = layout.tower(*layout.TOWERS["clip-g"], device="meta") if full else layout.tower(16, 3, 12, vocabulary=32)
    expected = clip_keys(network.state_dict())
    file = prefixed(prefix, layout.open_clip(expected)) | {f"{prefix}logit_scale": torch.ones(())}
    keys = open_clip_map(file, prefix)
    check(keys, file, expected)
    assert keys.dropped == (f"{prefix}logit_scale",)
    assert keys.sources["text_projection.weight"] == Source(f"{prefix}text_projection", "transpose")
    if full:
        assert (len(expected), sum(tensor.numel() for tensor in expected.values())) == (517, 694_659_840)


def test_open_clip_of_sdxl_as_diffusers_reads_it() -> None:
    network = layout.tower(16, 3, 16, vocabulary=32)  # diffusers splits by the projection's width: let it be the tower's
    file = prefixed("conditioner.embedders.1.model.", layout.open_clip(network.state_dict()))
    expected = oracle.convert_open_clip_checkpoint(network, dict(file), "conditioner.embedders.1.model.")
    check(open_clip_map(file, "conditioner.embedders.1.model."), file, expected)


@pytest.mark.parametrize("full", [False, True], ids=["narrow", "full"])
def test_open_clip_of_sd2_loses_its_last_layer(full: bool) -> None:
    prefix = "cond_stage_model.model."
    width, layers = (1024, 23) if full else (16, 2)
    settings = {"device": "meta"} if full else {"vocabulary": 32}
    whole = clip_keys(layout.tower(width, layers + 1, width, **settings).state_dict())
    expected = clip_keys(layout.tower(width, layers, **settings).state_dict())
    expected = {key: whole[key] for key in expected}
    file = prefixed(prefix, layout.open_clip(whole))
    keys = open_clip_map(file, prefix, penultimate=True)
    check(keys, file, expected)
    assert {key.removeprefix(prefix).split(".")[0] for key in keys.dropped} == {"text_projection", "transformer"}
    if full:
        assert (len(expected), sum(tensor.numel() for tensor in expected.values())) == (372, 340_387_840)


def test_open_clip_of_sd2_as_diffusers_reads_it() -> None:
    network = layout.tower(16, 24, 16, vocabulary=32)
    file = prefixed("cond_stage_model.model.", layout.open_clip(network.state_dict()))
    expected = oracle.convert_open_clip_checkpoint(network, dict(file))
    assert not any(".layers.23." in key for key in expected)
    expected.pop("text_projection.weight", None)
    check(open_clip_map(file, "cond_stage_model.model.", penultimate=True), file, expected)


def test_a_tower_that_was_cut_before_is_not_cut_again() -> None:
    expected = clip_keys(layout.tower(16, 23, vocabulary=32).state_dict())
    file = layout.open_clip(expected)
    check(open_clip_map(file, penultimate=True), file, expected)


def test_thirds_are_views() -> None:
    packed = torch.randn(6, 4)
    for i, change in enumerate(("query", "key", "value")):
        third = Source("packed", change).apply(packed)
        assert torch.equal(third, packed[2 * i : 2 * i + 2])
        assert third.untyped_storage().data_ptr() == packed.untyped_storage().data_ptr()
        assert third.is_contiguous()


@pytest.mark.parametrize("given", [(4, 3), (4, 3, 1, 1)])
def test_a_matrix_may_be_stored_as_a_convolution(given: tuple[int, ...]) -> None:
    source = Source("weight", "matrix")
    assert source.shape(given) == (4, 3) == source.apply(torch.zeros(given)).shape


def test_what_is_unknown_is_said() -> None:
    file = layout.ldm_unet(layout.unet("sd1").state_dict()) | {"time_embed.7.weight": torch.zeros(1), "surprise": torch.zeros(1)}
    assert set(unet_map(file).unknown) == {"time_embed.7.weight", "surprise"}
    assert autoencoder_map({"decoder.up.0.block.0.conv1.weight": 0, "decoder.else": 0}).unknown == ("decoder.else",)
    assert clip_map({"visual_projection.weight": 0}).unknown == ("visual_projection.weight",)


def test_two_keys_for_one_weight() -> None:
    keys = ["embeddings.token_embedding.weight", "text_model.embeddings.token_embedding.weight"]
    with pytest.raises(CheckpointError, match=r"two keys stand for text_model\.embeddings\.token_embedding\.weight"):
        clip_map(keys)


HARMLESS = (
    "alphas_cumprod", "alphas_cumprod_prev", "betas", "log_one_minus_alphas_cumprod", "posterior_mean_coef1",
    "sqrt_recip_alphas_cumprod", "model_ema.diffusion_modelinput_blocks00weight", "model_ema.decay", "global_step",
    "denoiser.sigmas", "logvar", "scale_factor", "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.logit_scale", "cond_stage_model.model.attn_mask", "cond_stage_model.model.visual.proj",
    "first_stage_model.loss.logvar", "loss.discriminator.main.0.weight", "v_pred", "ztsnr",
)  # fmt: skip
HARMFUL = (
    "model.diffusion_model.out.2.weight",
    "betas.weight",
    "visual.proj",
    "control_model.out",
    "text_projection",
    "lossy.weight",
)


@pytest.mark.parametrize(("key", "expected"), [*((key, True) for key in HARMLESS), *((key, False) for key in HARMFUL)])
def test_harmless_keys(key: str, expected: bool) -> None:
    assert is_harmless(key) is expected


def test_no_weight_of_any_family_is_harmless() -> None:
    networks: list[dict[str, Tensor]] = [layout.unet(family).state_dict() for family in FAMILIES]
    networks += [layout.autoencoder().state_dict(), clip_keys(layout.tower(16, 2, 12, vocabulary=32).state_dict())]
    files: list[Any] = [*networks, *(layout.ldm_unet(state) for state in networks[:5]), layout.ldm_autoencoder(networks[5])]
    assert not [key for file in files for key in file if is_harmless(key)]
