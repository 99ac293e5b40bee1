"""What the benchmarks share: models with random weights, an engine to drive, fair timing, and how a result is printed.

Both sides of a comparison are timed in turns in one process, and each counts with its best turn, or with its best steps: on
a shared machine noise only ever adds time.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import queue
import random
import string
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar
from unittest import mock

import psutil
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config
from transformers.generation.streamers import BaseStreamer

from kernel_engine.engine import Engine, EngineSettings
from kernel_engine.model import Model
from kernel_engine.request import LogprobRequest, Output, Request
from kernel_engine.sampling_params import SamplingParams
from kernel_engine.schedule import Policy
from kernel_engine.threads import compute_alone
from kernel_engine.vision.prompt import Prompt

T = TypeVar("T")
THREADS = torch.get_num_threads()
"""That PyTorch computes with on this machine; `begin` leaves all of them to the engine."""
HALF_B = {
    "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip
"""The shapes of Qwen2.5-0.5B."""
CHARACTER_REGEX = (
    r"""\{\n"""
    r"""    "name": "[\w\d\s]{1,16}",\n"""
    r"""    "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n"""
    r"""    "blood status": "(Pure-blood|Half-blood|Muggle-born)",\n"""
    r"""    "occupation": "(student|teacher|auror|ministry of magic|death eater|order of the phoenix)",\n"""
    r"""    "wand": \{\n"""
    r"""        "wood": "[\w\d\s]{1,16}",\n"""
    r"""        "core": "[\w\d\s]{1,16}",\n"""
    r"""        "length": [0-9]{1,2}\.[0-9]{0,2}\n"""
    r"""    \},\n"""
    r"""    "alive": "(Alive|Deceased)",\n"""
    r"""    "patronus": "[\w\d\s]{1,16}",\n"""
    r"""    "bogart": "[\w\d\s]{1,16}"\n"""
    r"""\}"""
)
"""The regular expression of SGLang's frontend tutorial."""


# -- what is run -------------------------------------------------------------------------------------------------------


def random_module(dtype: torch.dtype = torch.bfloat16, **changes: Any) -> PreTrainedModel:
    """Qwen2.5-0.5B's shapes, but for `changes`, with random weights: the same ones at every call."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(Qwen2Config(**HALF_B | changes), dtype=dtype).eval()


def load(module: PreTrainedModel, vocabulary: int = 151936) -> Model:
    """`module` as the engine runs it, loaded as the server does."""
    return Model(module, random_tokenizer(vocabulary))


def random_tokenizer(size: int = 151936) -> PreTrainedTokenizerFast:
    """Byte-level BPE with `size` entries: all bytes, then random words, 40 % of them with a leading space."""
    rng = random.Random(0)
    vocabulary = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))
    mixed = string.ascii_letters + string.digits + "_-.,:;'{}[]()/"
    while len(vocabulary) < size - 1:
        letters = string.ascii_lowercase if rng.random() < 0.7 else mixed
        word = "".join(rng.choices(letters, k=min(12, max(2, round(rng.gauss(5, 2))))))
        vocabulary["Ġ" + word if rng.random() < 0.4 else word] = None
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def random_prompt(length: int, seed: int, below: int = 4000) -> list[int]:
    """`length` tokens, of which the first is `seed`, so that two prompts share no prefix."""
    rng = random.Random(seed)
    return [seed, *(rng.randrange(below) for _ in range(length - 1))][:length]


@dataclass(frozen=True)
class Run:
    """What became of some requests that were submitted together: each one's tokens and text; `gaps`, the wall time until the
    first delivery of tokens and from each to the next; `steps`, the forward passes; `spent`, the engine's time by phase."""

    tokens: list[list[int]]
    texts: list[str]
    gaps: list[float]
    seconds: float
    steps: int
    prompt_computed: int
    spent: dict[str, float]


class _Task(Generic[T]):
    def __init__(self, work: Callable[[], T]):
        self._work = work
        self.done: Future[T] = Future()

    def run(self) -> None:
        try:
            self.done.set_result(self._work())
        except BaseException as error:
            self.done.set_exception(error)


class Runner:
    """An engine on its own thread, as in the server, and whoever calls waiting for it."""

    def __init__(
        self,
        model: Model,
        *,
        slots: int = 8192,
        rows: int = 64,
        threads: int = THREADS,
        share_prefixes: bool = True,
        drafted: int = 0,
    ):
        policy = Policy(chunk=512, max_prefill=16384, share_prefixes=share_prefixes, drafted=drafted)
        self._arrivals: queue.SimpleQueue[list[Output]] = queue.SimpleQueue()
        self.engine = Engine(
            model,
            EngineSettings(slots, rows, policy, seed=0, threads=threads),
            deliver=self._deliver,
        )
        self.engine.start()
        self._rids = itertools.count()
        self._delivered = 0.0

    def run(self, *prompts: list[int], logprobs: LogprobRequest | None = None, **params: Any) -> Run:
        """Submit all `prompts` at once and wait for the end of each."""
        settings = SamplingParams.from_json({"temperature": 0, "ignore_eos": True} | params)
        requests = [
            Request(
                rid=str(next(self._rids)), prompt=Prompt(prompt), params=settings, logprobs=logprobs, stream_interval=1
            )
            for prompt in prompts
        ]
        log = self.engine.log
        steps, computed, spent = log.steps, log.prompt_tokens, dict(log.seconds)
        outputs: dict[str, list[Output]] = {request.rid: [] for request in requests}
        moments = [time.perf_counter()]
        for request in requests:
            self.engine.submit(request)
        while not all(given and given[-1].finish_reason for given in outputs.values()):
            delivered = self._arrivals.get()
            moments.append(time.perf_counter())
            for output in delivered:
                outputs[output.rid].append(output)
        while self.engine.last_progress < self._delivered:  # the step that delivered notes its times afterwards
            time.sleep(1e-4)
        return Run(
            [[token for output in given for token in output.token_ids] for given in outputs.values()],
            ["".join(output.text for output in given) for given in outputs.values()],
            [after - before for before, after in itertools.pairwise(moments)],
            moments[-1] - moments[0],
            log.steps - steps,
            log.prompt_tokens - computed,
            {phase: total - spent[phase] for phase, total in log.seconds.items()},
        )

    def on_its_thread(self, work: Callable[[], T]) -> T:
        """The result of `work`, done on the idle engine's thread: what is compared must compute with the same threads."""
        task = _Task(work)
        self.engine._inbox.put(task.run)
        return task.done.result()

    def _deliver(self, outputs: list[Output]) -> None:
        self._delivered = time.monotonic()
        self._arrivals.put(outputs)

    def empty_cache(self) -> None:
        assert self.engine.flush_cache().result(), "requests are under way"

    def close(self) -> None:
        self.engine.close()


@contextlib.contextmanager
def without_jump_forward() -> Iterator[None]:
    with mock.patch("kernel_engine.collect.jump_forward", return_value=[]):
        yield


class _Gaps(BaseStreamer):
    """Notes when `generate` hands out tokens: first the prompt, then a token for each stream at a time."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.moments.append(time.perf_counter())

    def end(self) -> None:
        pass


@torch.inference_mode()
def generate(module: PreTrainedModel, prompts: list[list[int]], new: int) -> list[float]:
    """The gaps, as in `Run`, of transformers' own greedy generation, with shorter prompts padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    gaps = _Gaps()
    options: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    module.generate(ids, attention_mask=mask, streamer=gaps, **options)  # pyright: ignore[reportCallIssue]
    return [after - before for before, after in itertools.pairwise(gaps.moments)]


# -- how it is timed ---------------------------------------------------------------------------------------------------


def clock(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def best_of(rounds: int, *sides: Callable[[], float]) -> list[float]:
    """The least number that each side gives in `rounds` turns A, B, A, B ...; one more turn before them warms up."""
    for side in sides:
        side()
    turns = [[side() for side in sides] for _ in range(rounds)]
    return [min(numbers) for numbers in zip(*turns, strict=True)]


def steps_of(rounds: int, *sides: Callable[[], list[float]]) -> list[tuple[float, float]]:
    """For each side, which gives the gaps of a generation, its least first and its least later gap in `rounds` turns."""
    for side in sides:
        side()
    turns = [[side() for side in sides] for _ in range(rounds)]
    return [
        (min(gaps[0] for gaps in turn), min(gap for gaps in turn for gap in gaps[1:]))
        for turn in zip(*turns, strict=True)
    ]


def read_bandwidth() -> float:
    """Bytes a second at which this machine reads a tensor of 256 MB, with all of torch's threads."""
    tensor = torch.ones(64 << 20)
    return tensor.numel() * tensor.element_size() / best_of(8, lambda: clock(tensor.sum))[0]


# -- how it is told ----------------------------------------------------------------------------------------------------


def machine() -> str:
    """The machine, its load and the versions, in one line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "transformers", "xgrammar", "llguidance")
    )
    load = psutil.getloadavg()[0]
    return f"{name}, {psutil.cpu_count()} cores, load {load:.1f}; Python {platform.python_version()}, {versions}"


def begin(title: str) -> None:
    compute_alone()
    print(title)
    print(machine(), flush=True)


def ratio(value: float, target: float, what: str, *, at_most: bool = False) -> None:
    """Print a claim's outcome; the target is the least ratio unless `at_most`."""
    met = value <= target if at_most else value >= target
    bound = "at most " if at_most else ""
    print(f"ratio: {value:.3g} (target {bound}{target:g}, {'met' if met else 'missed'}) {what}", flush=True)
