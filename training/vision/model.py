"""The shape of tiny-vision, its start from tiny-chat's weights, and the tokens that images add to the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from training.export import SHARPNESS
from training.model import config as text_config
from training.vision.patches import PATCH

TINY_CHAT = Path(__file__).parents[2] / "kernel_engine" / "bundled" / "tiny-chat"
START, END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
# tiny-chat's first layer adds vectors some 300 times as long as its embeddings. Images enter as loud as what it adds, since
# otherwise nothing of them is left after it. Training keeps this factor apart; the export puts it in the merger.
LOUDNESS = 100.0
VISION = {
    "depth": 5,
    "hidden_size": 160,
    "intermediate_size": 480,
    "num_heads": 5,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": list(range(5)),
    "out_hidden_size": 256,
}


def tokenizer() -> Tokenizer:
    """tiny-chat's tokenizer and the four tokens around and in place of images."""
    result = Tokenizer.from_file(str(TINY_CHAT / "tokenizer.json"))
    result.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (START, END, IMAGE, VIDEO)])
    return result


def config(words: Tokenizer) -> Qwen2_5_VLConfig:
    """tiny-chat's shape with rotary positions in three parts, and a small vision tower."""
    text = {k: v for k, v in text_config(words).to_dict().items() if k not in ("architectures", "model_type")}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]}
    ids = words.get_vocab()
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=dict(VISION),
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[START],
        vision_end_token_id=ids[END],
        tie_word_embeddings=True,
    )


def build(words: Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """A model that reads text as tiny-chat does, and does not see yet."""
    model = Qwen2_5_VLForConditionalGeneration(config(words))
    weights = load_file(TINY_CHAT / "model.safetensors")
    language = model.model.language_model
    with torch.no_grad():
        known = weights.pop("model.embed_tokens.weight").float()
        language.embed_tokens.weight[: len(known)] = known
        language.embed_tokens.weight[len(known) :] = torch.randn(
            len(language.embed_tokens.weight) - len(known), 256
        ) * (known.std())
        rest = {name.removeprefix("model."): value.float() for name, value in weights.items()}
        rest["norm.weight"] /= SHARPNESS
        missing, unexpected = language.load_state_dict(rest, strict=False)
    if unexpected or missing != ["embed_tokens.weight"]:
        raise ValueError(f"tiny-chat does not fit: {missing} missing, {unexpected} unexpected")
    soften(language.layers[1:])
    return model


@torch.no_grad()
def soften(layers: Iterable[Any]) -> None:
    """Start queries and keys of these layers anew, small.

    tiny-chat's heads look at a single token each (an entropy of 0.1 to 0.25 nats was measured), and next to never at an
    image: no gradient tells them to. With these weights they look everywhere at first (4.1 nats).
    """
    for layer in layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.weight.normal_(0.0, 0.05)
            projection.bias.zero_()


def cosine_basis(width: int) -> Tensor:
    """Rows [width, 588]: brightness in many waves and colour in fewer, lowest frequencies first, each of length one."""
    place = (torch.arange(PATCH) + 0.5) / PATCH
    waves = torch.stack([torch.cos(math.pi * k * place) for k in range(PATCH)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    order = sorted(((i, j) for i in range(PATCH) for j in range(PATCH)), key=lambda p: (p[0] ** 2 + p[1] ** 2, p))
    planes = torch.tensor(((1.0, 1.0, 1.0), (1.0, -1.0, 0.0), (0.5, 0.5, -1.0)))
    planes = planes / planes.norm(dim=1, keepdim=True)
    shares = (width - 2 * (width // 5), width // 5, width // 5)
    rows = [
        (plane[:, None, None] * torch.outer(waves[i], waves[j])).flatten()
        for plane, share in zip(planes, shares, strict=True)
        for i, j in order[:share]
    ]
    return torch.stack(rows)


class PatchEmbedding(nn.Module):
    """The patch embedding as one matrix, which Muon can train; it starts as whitened waves, and so sees edges at once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(cosine_basis(VISION["hidden_size"]))

    @torch.no_grad()
    def whiten(self, patches: Tensor) -> None:
        """Scale each row so that its output varies alike over these patches; rare waves are not blown up."""
        spread = (patches.flatten(0, 1) @ self.weight.T).std(0, keepdim=True).T
        self.weight /= spread + 0.3

    @torch.no_grad()
    def write_to(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        """Give half of the weight to each of the two frames of the Hugging Face model."""
        target = model.model.visual.patch_embed.proj.weight
        target.copy_((self.weight / 2).view(-1, 3, 1, PATCH, PATCH).expand_as(target))
