"""Small random models that see, their image processors, and pictures for them."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    LlavaOnevisionConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from kernel_engine.model import Model
from kernel_engine.vision.prompt import Picture, Prompt
from kernel_engine.vision.sight import Sight

from .support import EOS, VOCAB, byte_tokenizer

IMAGE, START, END, VIDEO = 300, 301, 302, 303
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": EOS,
    "pad_token_id": None, "initializer_range": 0.3,
}  # fmt: skip
MROPE: dict[str, Any] = TEXT | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
}
SPECIAL: dict[str, Any] = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END,
    "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": None, "initializer_range": 0.3,
}  # fmt: skip
CONFIGS: dict[str, PretrainedConfig] = {
    "qwen2.5-vl": Qwen2_5_VLConfig(
        text_config=MROPE,
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
            "window_size": 56, "fullatt_block_indexes": [1], "initializer_range": 0.3,
        },
        **SPECIAL,
    ),
    "qwen2-vl": Qwen2VLConfig(
        text_config=MROPE,
        vision_config={
            "depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64, "mlp_ratio": 2, "initializer_range": 0.3,
        },
        **SPECIAL,
    ),
    "llava-onevision": LlavaOnevisionConfig(
        text_config=TEXT | {"model_type": "qwen2"},
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_use_head": False,
        },
        image_token_id=IMAGE, video_token_id=VIDEO, vision_feature_layer=-1, vision_feature_select_strategy="full",
        image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]], initializer_range=0.3,
    ),
}  # fmt: skip


def module_of(family: str) -> PreTrainedModel:
    torch.manual_seed(3)
    return AutoModelForImageTextToText.from_config(copy.deepcopy(CONFIGS[family])).eval()


def processor_of(family: str) -> Any:
    if family == "llava-onevision":
        return LlavaOnevisionImageProcessorPil(
            size={"height": 28, "width": 28}, image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]]
        )
    return Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 140 * 140})


def model_of(family: str) -> Model:
    module, tokenizer = module_of(family), byte_tokenizer()
    return Model(module, tokenizer, sight=Sight(module, processor_of(family), tokenizer))


def image(width: int, height: int, seed: int) -> Image.Image:
    """Noise, of which every patch is another."""
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))


IMAGES = [image(84, 56, 1), image(140, 112, 2), image(56, 84, 3)]
SAME_SIZE = image(84, 56, 4)


def shown(number: int) -> list[int]:
    """The tokens at which an image stands in a prompt."""
    return [START, IMAGE, END] * number


def prompt(model: Model, ids: list[int], images: list[Image.Image]) -> Prompt:
    """`ids` with `images` at their places; an image's key is its number among those of this module."""
    assert model.sight
    known = [*IMAGES, SAME_SIZE]
    pictures = [[picture(model, each, -2 - 2 * known.index(each))] for each in images]
    return model.sight.prompt(ids, pictures)


def picture(model: Model, image: Image.Image, key: int) -> Picture:
    assert model.sight
    return model.sight.picture(image, key)


class SightedOracle:
    """What transformers says of prompts with images: its processor's inputs and its own `generate`."""

    def __init__(self, family: str):
        self._module, self._processor = module_of(family), processor_of(family)

    @torch.inference_mode()
    def tokens(self, prompt: Prompt, images: list[Image.Image], count: int) -> list[int]:
        ids = torch.tensor([prompt.ids])
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if images:
            inputs |= dict(self._processor(images=images, return_tensors="pt"))
        if images and "image_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = (ids == IMAGE).int()
        elif images:
            inputs["batch_num_images"] = torch.tensor([len(images)])
        output = self._module.generate(**inputs, max_new_tokens=count, do_sample=False, pad_token_id=0)  # pyright: ignore
        return output[0, len(prompt.ids) :].tolist()
