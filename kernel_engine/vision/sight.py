"""A model's vision part: what its processor makes of an image, where that stands in a prompt, and its embeddings.

Invariant: an image's embeddings are computed once as long as they are kept, whichever prompts it stands in. `picture` and
`prompt` may be called from any thread, `embeddings` on the engine's only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import RequestError
from .families import FAMILIES, Family
from .prompt import Picture, PlacedPicture, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

KEPT_BYTES = 256 << 20
"""Of embeddings that are kept on the model's device."""


class Sight:
    """`module`'s vision part with its image `processor`, one of transformers'."""

    def __init__(self, module: PreTrainedModel, processor: Any, tokenizer: PreTrainedTokenizerFast):
        self._module, self._processor = module, processor
        self._family: Family = FAMILIES[module.config.model_type](module)
        self._token: int = self._family.token
        self._spelled = str(tokenizer.convert_ids_to_tokens(self._token))
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self.computed = 0
        """Images that the vision part has run on."""

    @property
    def axes(self) -> int:
        """How many numbers say where a token is."""
        return self._family.axes

    def picture(self, image: Image.Image, key: int) -> Picture:
        """`image` as the model takes it. Raises `RequestError` if the processor does not take it."""
        try:
            inputs = dict(self._processor(images=[image], return_tensors="pt"))
        except ValueError as error:
            raise RequestError(f"the model does not take an image: {str(error).rstrip('.')}.") from None
        return Picture(key, self._family.places(inputs), inputs)

    def prompt(self, ids: list[int], shown: list[list[Picture]]) -> Prompt:
        """`ids` with the pictures `shown`, each list of them at one of the tokens that stand for an image."""
        places = ids.count(self._token)
        if places != len(shown):
            raise RequestError(
                f"the prompt has {places} places for images, and {len(shown)} are given: write {self._spelled} (in this model's "
                "chat template: an image part) once for each.",
                param="image_data",
            )
        if sum(map(len, shown)) > 1:
            shown = [[self._among_others(picture) for picture in each] for each in shown]
        expanded: list[int] = []
        placed: list[PlacedPicture] = []
        following = iter(shown)
        for token in ids:
            if token != self._token:
                expanded.append(token)
                continue
            for number, picture in enumerate(next(following)):
                expanded += self._family.between if number else []
                placed.append(PlacedPicture(picture, len(expanded)))
                expanded += [token] * picture.tokens
        return Prompt(expanded, tuple(placed), self._family.positions(expanded, placed) if placed else None)

    def _among_others(self, picture: Picture) -> Picture:
        inputs = self._family.among_others(picture.inputs)
        if inputs is picture.inputs:
            return picture
        return Picture(picture.key ^ 1, self._family.places(inputs), inputs)

    @torch.inference_mode()
    def embeddings(self, picture: Picture) -> Tensor:
        """Those of its places, `[picture.tokens, hidden]`."""
        if (found := self._kept.get(picture.key)) is None:
            inputs = {name: tensor.to(self._module.device) for name, tensor in picture.inputs.items()}
            found = self._family.embed(inputs)
            self.computed += 1
        self._kept[picture.key] = found
        self._kept.move_to_end(picture.key)
        while len(self._kept) > 1 and _bytes(self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return found


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
