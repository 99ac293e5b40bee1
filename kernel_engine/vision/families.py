"""What differs between the families of models that see: how many places an image takes, where they are, its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .prompt import PlacedPicture

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = dict[str, Tensor]
"""What a family's processor makes of one image."""


class Family(Protocol):
    """`token` is the id that stands for an image in a prompt, `axes` how many numbers say where a token is, and `between` the
    tokens between two images at the place of one, such as the frames of a video."""

    token: int
    axes: int
    between: list[int]

    def places(self, inputs: Inputs) -> int:
        """How many tokens an image takes."""
        ...

    def among_others(self, inputs: Inputs) -> Inputs:
        """What an image is in a prompt that shows more than one; the same inputs if that makes no difference."""
        ...

    def positions(self, ids: list[int], pictures: Sequence[PlacedPicture]) -> np.ndarray | None:
        """`[axes, len(ids)]`; None where they are the indices."""
        ...

    def embed(self, inputs: Inputs) -> Tensor:
        """`[places, hidden]`."""
        ...


class Qwen:
    """Qwen2-VL and Qwen2.5-VL: a place for each square of merged patches, whose positions have time, height and width."""

    axes = 3

    def __init__(self, module: PreTrainedModel):
        config: Any = module.config
        self._model: Any = module.model
        self._merged = config.vision_config.spatial_merge_size**2
        self.token: int = config.image_token_id
        self.between: list[int] = [config.vision_end_token_id, config.vision_start_token_id]

    def places(self, inputs: Inputs) -> int:
        return int(inputs["image_grid_thw"].prod()) // self._merged

    def among_others(self, inputs: Inputs) -> Inputs:
        return inputs

    def positions(self, ids: list[int], pictures: Sequence[PlacedPicture]) -> np.ndarray:
        tokens = torch.tensor([ids])
        grids = torch.cat([placed.picture.inputs["image_grid_thw"] for placed in pictures])
        found, _ = self._model.get_rope_index(tokens, (tokens == self.token).int(), image_grid_thw=grids)
        return found[:, 0].numpy()

    def embed(self, inputs: Inputs) -> Tensor:
        found = self._model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
        return found.pooler_output[0]


class LlavaOneVision:
    """LLaVA-OneVision: an image alone takes places for an overview and for the crops that it fills, among others for the overview
    only; positions are the indices."""

    axes = 1

    def __init__(self, module: PreTrainedModel):
        config: Any = module.config
        self._model: Any = module.model
        self._aspect_ratio = config.vision_aspect_ratio
        self.between: list[int] = []
        self._overview = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        self.token: int = config.image_token_id

    def places(self, inputs: Inputs) -> int:
        crops = inputs["pixel_values"].shape[1]
        if crops == 1:
            return self._overview + 1  # the embedding that ends a line
        shape = torch.empty((crops, self._overview, 1), device="meta")
        line_end = torch.empty(1, device="meta")
        packed, _ = self._model.pack_image_features(
            [shape], inputs["image_sizes"], image_newline=line_end, vision_aspect_ratio=self._aspect_ratio
        )
        return len(packed[0])

    def among_others(self, inputs: Inputs) -> Inputs:
        several = torch.tensor([2])
        return inputs | {"pixel_values": inputs["pixel_values"][:, :1], "batch_num_images": several}

    def positions(self, ids: list[int], pictures: Sequence[PlacedPicture]) -> None:
        return None

    def embed(self, inputs: Inputs) -> Tensor:
        return self._model.get_image_features(**inputs, return_dict=True).pooler_output[0]


FAMILIES: dict[str, Callable[[PreTrainedModel], Family]] = {
    "qwen2_vl": Qwen, "qwen2_5_vl": Qwen, "llava_onevision": LlavaOneVision,
}  # fmt: skip
"""By the config's model type."""
