"""Programs on models that Crusoe serves, which has OpenAI's routes."""

from __future__ import annotations

import os
from typing import Any

from sgl_jupyter.backends.openai import OpenAI

CRUSOE_URL = "https://managed-inference-api-proxy.crusoecloud.com/v1/"


class Crusoe(OpenAI):
    """A model that Crusoe serves; all else is as with `OpenAI`.

    Args:
        api_key: Crusoe's; if not given, CRUSOE_API_KEY of the environment.
        base_url: where it is, if not where SGLang expects it.
        options: whatever else `OpenAI` takes.

    Raises:
        ImportError: the package `openai` is not installed.
        ValueError: there is no key. (One for OpenAI is not sent elsewhere.)
    """

    def __init__(self, model_name: str, api_key: str | None = None, base_url: str = CRUSOE_URL, **options: Any) -> None:
        key = api_key or os.environ.get("CRUSOE_API_KEY")
        if not key:
            raise ValueError("a key for Crusoe is needed: api_key=... or CRUSOE_API_KEY in the environment")
        super().__init__(model_name, base_url=base_url, api_key=key, **options)
