"""One stream on a CPU with weights in int8 and in int4, against the same engine with weights in bf16.

The engines run on the calling thread: a thread of its own, and so a team of OpenMP's, for each of them would slow all of them.
"""

from __future__ import annotations

from kernel_engine.engine import Engine, EngineSettings
from kernel_engine.model import Model
from kernel_engine.quantize import SCHEMES, quantize
from kernel_engine.request import Request
from kernel_engine.sampling_params import SamplingParams
from kernel_engine.schedule import Policy
from kernel_engine.threads import compute_with
from kernel_engine.vision.prompt import Prompt

from .common import THREADS, begin, clock, random_module, random_prompt, random_tokenizer, ratio, steps_of

PROMPT, NEW, ROUNDS = 32, 24, 4


def engine_of(name: str | None) -> Engine:
    """An engine of the benchmark's shapes with its weights in what `name` says; None leaves them in bf16."""
    module = random_module()
    if name:
        quantize(module, SCHEMES[name])
    policy = Policy(chunk=512, max_prefill=16384, share_prefixes=False)
    settings = EngineSettings(slots=1024, rows=4, policy=policy, seed=0)
    engine = Engine(Model(module, random_tokenizer()), settings, deliver=lambda outputs: None)
    engine.wait_until_loaded()
    return engine


def steps(engine: Engine) -> list[float]:
    """The wall time of each step of a generation."""
    params = SamplingParams(max_new_tokens=NEW, temperature=0.0, ignore_eos=True)
    engine.submit(Request(rid="0", prompt=Prompt(random_prompt(PROMPT, seed=1)), params=params))
    engine._drain()
    times = []
    while engine.busy:
        times.append(clock(engine.step))
    return times


def main() -> None:
    begin(f"One stream, quantized: Qwen2.5-0.5B's shapes, {PROMPT} prompt tokens, {NEW} new ones")
    names = (None, "int8", "int4")
    engines = [engine_of(name) for name in names]
    compute_with(THREADS)
    measured = steps_of(ROUNDS, *(lambda engine=engine: steps(engine) for engine in engines))
    for name, engine, (prefill, step) in zip(names, engines, measured, strict=True):
        size = engine.model.weight_bytes / 1e9
        print(f"{name or 'bf16'}: {step * 1e3:.1f} ms a token, prompt {prefill * 1e3:.0f} ms, weights of {size:.2f} GB")
        engine.close()
    (_, plain), *others = measured
    for name, (_, step) in zip(names[1:], others, strict=True):
        ratio(plain / step, 1.0, f"bf16's time per token over {name}'s")


if __name__ == "__main__":
    main()
