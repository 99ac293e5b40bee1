"""The engine's own cost: a step without its forward pass, a request over HTTP, and a program's `gen` on top of that."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import httpx

import sgl_jupyter as sgl
from kernel_engine.loading import load_model
from kernel_engine.server_args import ServerArgs

from .common import Runner, begin, clock, ratio

PROMPT, STEPS, REQUESTS, ROUNDS = "The capital city of France is", 256, 100, 5


@sgl.function
def program(s: Any) -> None:
    s += PROMPT + sgl.gen("answer", temperature=0, max_tokens=1)


def step_cost() -> float:
    """Seconds of a decoding step of one stream that are not the forward pass."""
    model = load_model(ServerArgs(model_path="tiny-chat", device="cpu"))
    runner = Runner(model, threads=1)
    prompt = model.tokenizer(PROMPT)["input_ids"]
    runs = [runner.run(prompt, max_new_tokens=STEPS) for _ in range(ROUNDS)]
    runner.close()
    run = min(runs, key=lambda run: run.seconds)
    print(f"a step: {run.seconds / run.steps * 1e3:.2f} ms, of which " + ", ".join(
        f"{phase} {seconds / run.steps * 1e3:.2f}" for phase, seconds in run.spent.items()
    ))  # fmt: skip
    return (run.seconds - run.spent["forward"]) / run.steps


def request_costs() -> tuple[float, float]:
    """Seconds of a one-token request over HTTP beyond its forward pass, and of a program's `gen` beyond that request."""
    with sgl.launch("tiny-chat", log_level="warning") as engine:
        headers = {"Authorization": f"Bearer {engine.api_key}"}
        with httpx.Client(base_url=str(engine.url), headers=headers) as client:
            body = {"text": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": 1}}

            def forward() -> float:
                return client.get("/get_server_info").json()["internal_states"][0]["step_seconds"]["forward"]

            def request() -> None:
                client.post("/generate", json=body).raise_for_status()

            def gen() -> None:
                program.run(backend=engine.endpoint)["answer"]

            medians(request, gen)
            before = forward()
            whole, with_program = medians(request, gen)
            computing = (forward() - before) / (2 * REQUESTS)
    print(
        f"a request: {whole * 1e3:.2f} ms, of which forward {computing * 1e3:.2f}; a program: {with_program * 1e3:.2f} ms"
    )
    return whole - computing, with_program - whole


def medians(*sides: Callable[[], None]) -> list[float]:
    turns = [[clock(side) for side in sides] for _ in range(REQUESTS)]
    return [statistics.median(times) for times in zip(*turns, strict=True)]


def main() -> None:
    begin("The engine's own cost: tiny-chat, one stream, greedy")
    step = step_cost()
    request, gen = request_costs()
    ratio(step / 0.5e-3, 1.0, f"own cost of a step, {step * 1e3:.2f} ms, over 0.5 ms", at_most=True)
    ratio(gen / 1e-3, 1.0, f"a program's cost per gen, {gen * 1e3:.2f} ms, over 1 ms", at_most=True)
    ratio(request / 3e-3, 1.0, f"own cost of a request over HTTP, {request * 1e3:.2f} ms, over 3 ms", at_most=True)


if __name__ == "__main__":
    main()
