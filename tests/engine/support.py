"""Small random models, their tokenizer, and an engine that runs on the test's own thread."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from kernel_engine.engine import Engine, EngineSettings
from kernel_engine.lora import Adapters
from kernel_engine.model import Model
from kernel_engine.request import LogprobRequest, Output, Request
from kernel_engine.sampling_params import SamplingParams
from kernel_engine.schedule import Policy
from kernel_engine.vision.prompt import Prompt

VOCAB = 320
EOS = 256
FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def examples(count: int) -> settings:
    """Settings for a property: `count` examples, the same in every run."""
    return settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and `<eos>` (256)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: i for i, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def random_module(family: str = "qwen2", **overrides: Any) -> PreTrainedModel:
    """A randomly initialised fp32 model of 3 layers and 4 heads in 2 groups."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": EOS, "initializer_range": 0.3,
    }  # fmt: skip
    if family == "qwen3":
        shape["head_dim"] = 16
    return AutoModelForCausalLM.from_config(FAMILIES[family](**shape | overrides)).eval()


def reference(module: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens by transformers' own generate; ends at `<eos>`, which is included."""
    capped = getattr(module.config, "attn_logit_softcapping", None)  # which transformers computes eagerly only
    module.set_attn_implementation("eager" if capped else "sdpa")
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        output = module.generate(
            ids, max_new_tokens=count, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(ids)
        )
    return output[0, len(prompt) :].tolist()  # pyright: ignore[reportIndexIssue]


class Oracle:
    """What transformers says of a module's weights. It owns the module, which no engine may use."""

    LONGEST = 32

    def __init__(self, module: PreTrainedModel):
        self._module = module
        self._known: dict[tuple[int, ...], list[int]] = {}

    def tokens(self, prompt: list[int], count: int) -> list[int]:
        """The first `count` greedy tokens, at most `LONGEST`."""
        assert count <= self.LONGEST
        if tuple(prompt) not in self._known:
            self._known[tuple(prompt)] = reference(self._module, prompt, self.LONGEST)
        return self._known[tuple(prompt)][:count]

    @torch.inference_mode()
    def logprobs(self, tokens: list[int]) -> torch.Tensor:
        """`[len(tokens), vocabulary]`: row i is the distribution of the token after `tokens[: i + 1]`."""
        self._module.set_attn_implementation("sdpa")
        return self._module(torch.tensor([tokens])).logits[0].float().log_softmax(-1)


@dataclass
class Result:
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)

    @property
    def last(self) -> Output:
        return self.outputs[-1]

    @property
    def finish(self) -> dict[str, Any]:
        assert self.last.finish_reason is not None
        return self.last.finish_reason


class StepEngine:
    """An engine without a thread: the test decides when a step is made, and every step's accounting is checked."""

    def __init__(
        self,
        module: PreTrainedModel | Model,
        *,
        adapters: Adapters | None = None,
        slots: int = 2048,
        rows: int = 16,
        chunk: int = 512,
        settings: dict[str, Any] | None = None,
        **policy: Any,
    ):
        limits = Policy(chunk=chunk, max_prefill=1 << 30, **policy)
        self.requests: dict[str, Request] = {}
        self.results: dict[str, Result] = {}
        self.engine = Engine(
            module if isinstance(module, Model) else Model(module, byte_tokenizer(), adapters=adapters),
            EngineSettings(slots, rows, limits, seed=0, **settings or {}),
            self._deliver,
        )
        self._rids = itertools.count()

    def _deliver(self, outputs: list[Output]) -> None:
        for output in outputs:
            result = self.results[output.rid]
            result.outputs.append(output)
            result.text += output.text
            result.tokens += output.token_ids

    def add(
        self,
        prompt: Prompt | list[int] | str,
        *,
        logprobs: LogprobRequest | None = None,
        lora_path: str | None = None,
        stream: bool = False,
        **params: Any,
    ) -> str:
        ids = self.engine.model.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        prompt = ids if isinstance(ids, Prompt) else Prompt(ids)
        rid = f"r{next(self._rids)}"
        params = {"temperature": 0, "max_new_tokens": 16} | params
        request = Request(
            rid=rid, prompt=prompt, params=SamplingParams.from_json(params), logprobs=logprobs, lora_path=lora_path,
            stream_interval=1 if stream else None,
        )  # fmt: skip
        self.engine.check(request)
        self.requests[rid], self.results[rid] = request, Result()
        self.engine.submit(request)
        return rid

    def step(self) -> None:
        """Take in what was submitted and make one step."""
        inbox = self.engine._inbox
        while not inbox.empty():
            inbox.get()()
        if self.engine.busy:
            self.engine.step()
        self.engine.scheduler.check_integrity()

    def run(self) -> None:
        """Step until everything is finished (compiling included), then check that nothing is held."""
        while True:
            self.step()
            if self.engine._compiling:
                self.engine._inbox.get()()
            elif not self.engine.busy and self.engine._inbox.empty():
                break
        assert self.engine.scheduler.tree.protected == 0
        assert self.engine.scheduler.used == 0

    def abort(self, rid: str) -> None:
        self.engine.abort(rid)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def generate(self, prompt: Prompt | list[int] | str, **options: Any) -> Result:
        rid = self.add(prompt, **options)
        self.run()
        return self.results[rid]
