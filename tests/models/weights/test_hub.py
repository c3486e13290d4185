"""Models by their names on the hub: from a cache laid out as `huggingface_hub` does, and what is asked of a hub that answers."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors

from lsregen.framework import CheckpointError, ConfigError, Pipeline
from lsregen.models.weights.hub import needed_files
from lsregen.models.weights.tokenizers import OPENAI
from tests.models.small_models import write_tokenizer
from tests.near import near

NAME, COMMIT = "somebody/narrow-one", "0123456789abcdef0123456789abcdef01234567"
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
}
NETWORK = "unet/diffusion_pytorch_model"
NAMES = [
    ".gitattributes", "README.md", "model_index.json", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors",
    "feature_extractor/preprocessor_config.json", "safety_checker/config.json", "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin", "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "unet/config.json",
    f"{NETWORK}.bin", f"{NETWORK}.fp16.bin", f"{NETWORK}.fp16.safetensors", f"{NETWORK}.non_ema.safetensors",
    f"{NETWORK}.safetensors.index.json", f"{NETWORK}-00001-of-00002.safetensors", f"{NETWORK}-00002-of-00002.safetensors",
    "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.bin",
]  # fmt: skip
SETTINGS = [
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json", "unet/config.json",
    "vae/config.json",
]  # fmt: skip
PLAIN = [
    "text_encoder/model.safetensors", f"{NETWORK}.safetensors.index.json", f"{NETWORK}-00001-of-00002.safetensors",
    f"{NETWORK}-00002-of-00002.safetensors", "vae/diffusion_pytorch_model.safetensors",
]  # fmt: skip
HALF = [name for name in NAMES if name.endswith(".fp16.safetensors")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, name: str, folder: Path | None = None, ref: str = "main") -> Path:
    """A repository in the cache: a copy of a folder, as the snapshot that a branch points to."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / ref).write_text(COMMIT)
    snapshot = home / "snapshots" / COMMIT
    if folder is None:
        snapshot.mkdir(parents=True)
    else:
        shutil.copytree(folder, snapshot)
    return snapshot


def test_a_name_of_the_cache_loads_offline(oracles: Any, cache: Path) -> None:
    folder = oracles("sd1").folder
    put(cache, NAME, folder, "v2")
    model = Pipeline.load(NAME, device="cpu", dtype="fp32", revision="v2").model
    assert model.describe()["name"] == NAME
    z = torch.randn(1, 4, 8, 8)
    assert near(model.decode(z), oracles("sd1").load().decode(z))
    assert Pipeline.load(NAME, device="cpu", revision=COMMIT).model.describe()["name"] == NAME
    with pytest.raises(ConfigError, match=r"it is not in the hub's cache, and .* \(HF_HUB_OFFLINE is set\); unset it"):
        Pipeline.load(NAME)


def test_a_path_opens_no_socket_and_goes_before_the_hub(oracles: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a local model opened a socket")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(oracles("sd1").folder, tmp_path / "owner" / "name")
    pipeline = Pipeline.load("owner/name", device="cpu", dtype="fp32")
    assert pipeline("a red circle", size=(64, 64), steps=1).report.model["name"] == "name"
    with pytest.raises(ConfigError, match="revision 'v1': owner/name is on this machine; only models of a hub"):
        Pipeline.load("owner/name", revision="v1")
    with pytest.raises(ConfigError, match=r"revision 'v1': .*shapeworld-base is on this machine"):
        Pipeline.load("shapeworld-base", revision="v1")


@pytest.mark.parametrize("name", ["nosuch", "a/b/c", "owner/na--me", "-owner/name", "owner/name.git", "own er/name"])
def test_what_is_no_name_is_answered_with_all_that_was_tried(cache: Path, tmp_path: Path, name: str) -> None:
    expected = r"neither a model that ships with lsregen \(shapeworld-.*\) nor an existing path, nor .* form owner/name"
    with pytest.raises(ConfigError, match=f"'{name}' is {expected}"):
        Pipeline.load(name)
    assert not cache.exists()
    with pytest.raises(ConfigError, match="nor an existing path"):  # a Path is a path
        Pipeline.load(Path(NAME))


def test_needed_files() -> None:
    assert sorted(needed_files(INDEX, NAMES, None, NAME)) == sorted(SETTINGS + PLAIN)
    assert sorted(needed_files(INDEX, NAMES, "fp16", NAME)) == sorted(SETTINGS + HALF)
    without = [name for name in NAMES if name not in PLAIN]
    assert sorted(needed_files(INDEX, without, None, NAME)) == sorted(SETTINGS + HALF)
    with pytest.raises(CheckpointError, match=r"narrow-one/unet: no weights of the variant 'fp8'; it has fp16, non_ema, the pl"):
        needed_files(INDEX, NAMES, "fp8", NAME)
    with pytest.raises(CheckpointError, match=r"narrow-one/unet: no .*, only .*bin: a pickle"):
        needed_files(INDEX, [name for name in NAMES if not name.endswith(".safetensors") and "index" not in name], None, NAME)


class Hub:
    """A hub that answers: what it has, and what was asked of it."""

    def __init__(self, names: list[str], folder: Path) -> None:
        self.names, self.folder, self.asked = names, folder, list[dict[str, Any]]()

    def list_repo_files(self, _: Any, name: str, **__: Any) -> list[str]:
        assert name == NAME
        return self.names

    def hf_hub_download(self, _: str, file: str, **__: Any) -> str:
        return str(self.folder / file)

    def snapshot_download(self, name: str, **asked: Any) -> str:
        self.asked.append({"name": name, **asked})
        return str(self.folder)


@pytest.fixture
def hub(oracles: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    snapshot = put(cache, NAME, oracles("sd1").folder)
    made = Hub(sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()), snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda api, name, **asked: made.list_repo_files(api, name))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    return made


def test_only_what_is_needed_is_downloaded(hub: Hub) -> None:
    hub.names = [*hub.names, "unet/diffusion_pytorch_model.bin", "README.md"]
    assert Pipeline.load(NAME, device="cpu", revision="v2").model.describe()["name"] == NAME
    (asked,) = hub.asked
    assert (asked["name"], asked["revision"]) == (NAME, "v2")
    assert not set(asked["allow_patterns"]) & {"unet/diffusion_pytorch_model.bin", "README.md"}
    assert {"unet/config.json", "tokenizer/vocab.json", "vae/diffusion_pytorch_model.safetensors"} <= set(asked["allow_patterns"])


def test_what_could_not_be_loaded_is_not_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.folder = tmp_path
    (tmp_path / "model_index.json").write_text(json.dumps({**INDEX, "transformer": ["diffusers", "Transformer"]}))
    with pytest.raises(CheckpointError, match=f"{NAME}/model_index.json: .* has a component transformer"):
        Pipeline.load(NAME)
    hub.names = ["README.md", "a.safetensors", "b.ckpt"]
    with pytest.raises(
        CheckpointError, match=r"on the hub, but no model folder .* use a single file \(a.safetensors\), download"
    ):
        Pipeline.load(NAME)
    assert not hub.asked


def bare(kind: type[Exception]) -> Exception:
    """An error as `huggingface_hub` raises it, without the answer of a server that it is made of."""
    return kind.__new__(kind)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (errors.GatedRepoError, f"its authors let in only .* https://huggingface.co/{NAME}, and log in with `hf auth login`"),
        (errors.RepositoryNotFoundError, "no such path here, and no such model on the hub; check the spelling, or log in"),
        (errors.RevisionNotFoundError, "the hub has the model, but no such branch, tag or commit"),
        (TimeoutError, r"not in the hub's cache, and the hub cannot be asked \(TimeoutError: \); try again, or download"),
    ],
)
def test_what_a_hub_refuses(cache: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], said: str) -> None:
    def refuse(*_: Any, **__: Any) -> list[str]:
        raise bare(kind)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", refuse)
    with pytest.raises(ConfigError, match=f"^model '{NAME}', revision 'v2': .*{said}"):
        Pipeline.load(NAME, revision="v2")


def test_without_a_connection_the_cache_is_enough(oracles: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> list[str]:
        raise TimeoutError("nobody answers")

    put(cache, NAME, oracles("sd1").folder)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", refuse)
    assert Pipeline.load(NAME, device="cpu").model.describe()["name"] == NAME


def test_a_tokenizer_that_a_folder_lacks_comes_from_the_cache(oracles: Any, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(oracles("sd1").folder, folder)
    shutil.rmtree(folder / "tokenizer")
    said = rf"tokenizer: no tokenizer; expected .*, there or in the hub's cache; put .* of {OPENAI.repository} into "
    with pytest.raises(CheckpointError, match=f"{said}.*copy/tokenizer$"):
        Pipeline.load(folder, device="cpu")
    snapshot = put(cache, OPENAI.repository)
    snapshot.rmdir()
    write_tokenizer(snapshot)
    theirs, ours = oracles("sd1").load(), Pipeline.load(folder, device="cpu").model
    assert ours.tokens("a red circle") == theirs.tokens("a red circle")


def test_a_variant_of_a_folder(oracles: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(oracles("sd1").folder, folder)
    for path in list(folder.rglob("*.safetensors")):
        shutil.copy(path, path.with_suffix(".fp16.safetensors"))
    described = Pipeline.load(folder, device="cpu", variant="fp16").model.describe()
    assert [*described["components"]["unet"]["sha256"]] == ["diffusion_pytorch_model.fp16.safetensors"]
    with pytest.raises(CheckpointError, match="no weights of the variant 'fp61'; it has fp16, the plain one"):
        Pipeline.load(folder, device="cpu", variant="fp61")
