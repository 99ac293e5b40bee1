"""What breaks ends its own request with a sentence, and nothing else: the engine lives, and every slot is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kernel_engine.async_engine import AsyncEngine
from kernel_engine.batch import Batch
from kernel_engine.engine import Engine, EngineSettings
from kernel_engine.errors import RequestError
from kernel_engine.model import Model
from kernel_engine.request import Output, Request
from kernel_engine.sampling_params import SamplingParams
from kernel_engine.schedule import LEAST_CHUNK, Policy
from kernel_engine.vision.prompt import Prompt

from .support import Result, StepEngine, byte_tokenizer, random_module

LONG = {"max_new_tokens": 200, "ignore_eos": True}
SETTINGS = EngineSettings(slots=2048, rows=8, policy=Policy(chunk=64, max_prefill=1 << 30), seed=0)


@pytest.fixture(scope="module")
def module() -> PreTrainedModel:
    return random_module()


def failed(result: Result, *words: str) -> None:
    assert (result.finish["type"], result.finish["status_code"]) == ("abort", 500)
    assert all(word in result.finish["message"] for word in words), result.finish


def all_is_free(engine: Engine) -> None:
    engine.scheduler.check_integrity()
    assert engine.scheduler.flush()
    assert engine.scheduler.pool.free_count == engine.settings.slots


# -- too little memory -------------------------------------------------------------------------------------------------


def exhaust_cpu() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def exhaust_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


Exhaust = Callable[[], None]
EXHAUST = pytest.mark.parametrize("exhaust", [exhaust_cpu, exhaust_cuda], ids=["cpu", "cuda"])


def limit(engine: StepEngine, monkeypatch: pytest.MonkeyPatch, exhaust: Exhaust, tokens: int) -> None:
    """Let steps of more than `tokens` tokens run out of memory."""
    compute = engine.engine.model.forward

    def forward(batch: Batch, cache: Any) -> Tensor:
        if len(batch.input_ids) > tokens:
            exhaust()
        return compute(batch, cache)

    monkeypatch.setattr(engine.engine.model, "forward", forward)


@EXHAUST
def test_prompts_are_read_in_smaller_steps(module: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, exhaust: Exhaust):
    prompts = [[n % 250 for n in range(start, start + 200)] for start in (1, 2)]
    wanted = [StepEngine(module).generate(prompt).tokens for prompt in prompts]
    engine = StepEngine(module)
    limit(engine, monkeypatch, exhaust, 130)
    rids = [engine.add(prompt) for prompt in prompts]
    engine.run()
    assert [engine.results[rid].tokens for rid in rids] == wanted
    assert engine.engine.scheduler.policy.chunk == 100
    assert engine.generate(prompts[0]).tokens == wanted[0]
    all_is_free(engine.engine)


@EXHAUST
def test_a_step_that_cannot_be_smaller_fails_its_requests(
    module: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, exhaust: Exhaust
):
    engine = StepEngine(module)
    with monkeypatch.context() as patch:
        limit(engine, patch, exhaust, LEAST_CHUNK - 1)
        prompt = [*range(200)]
        failed(engine.generate(prompt), "out of memory in a step")
    assert engine.generate(prompt).tokens == StepEngine(module).generate(prompt).tokens
    all_is_free(engine.engine)


@EXHAUST
def test_running_out_of_memory_while_sampling(
    module: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, exhaust: Exhaust
):
    engine = StepEngine(module)
    wanted = engine.generate([1, 2, 3]).tokens
    with monkeypatch.context() as patch:
        patch.setattr("kernel_engine.sampling.sample", lambda *_: exhaust())
        failed(engine.generate([1, 2, 3]), "out of memory in a step")
    assert engine.generate([1, 2, 3]).tokens == wanted
    all_is_free(engine.engine)


def test_those_who_wait_outlive_a_step_without_memory(module: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    engine = StepEngine(module, rows=1)
    with monkeypatch.context() as patch:
        limit(engine, patch, exhaust_cuda, 0)
        first, second = engine.add([1, 2]), engine.add([1, 3])
        engine.step()
    engine.run()
    failed(engine.results[first], "CUDA out of memory")
    assert engine.results[second].tokens == StepEngine(module).generate([1, 3]).tokens


def test_a_request_alone_in_a_full_pool_ends_by_its_length(module: PreTrainedModel):
    engine = StepEngine(module, slots=64)
    engine.generate([9] * 30)  # leaves a cached prefix, which has to go
    result = engine.generate([7] * 40, **LONG)
    assert (result.finish, len(result.tokens)) == ({"type": "length", "length": 24}, 24)
    assert result.last.retractions == 0
    all_is_free(engine.engine)


# -- weights that are no numbers ---------------------------------------------------------------------------------------

BAD = 77
"""A token whose embedding is no number."""


@pytest.fixture
def poisoned() -> PreTrainedModel:
    module = random_module()
    with torch.no_grad():
        embeddings(module)[BAD] = torch.nan
    return module


def heal(module: PreTrainedModel) -> None:
    with torch.no_grad():
        embeddings(module)[BAD] = embeddings(random_module())[BAD]


def embeddings(module: PreTrainedModel) -> Tensor:
    weight = module.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


@pytest.mark.parametrize("params", [{}, {"max_new_tokens": 0}, {"temperature": 1.0}, {"regex": "(yes|no)"}], ids=str)
@pytest.mark.parametrize("at", [0, 10, 39])
@pytest.mark.parametrize("chunk", [8, 512])
def test_logits_that_are_no_numbers(
    poisoned: PreTrainedModel, module: PreTrainedModel, params: dict, at: int, chunk: int
):
    """The request fails, its neighbour does not, and what was computed is not used again."""
    prompt = [*range(at), BAD, *range(at, 39)]
    engine = StepEngine(poisoned, chunk=chunk)
    neighbour, bad = engine.add([5, 6, 7]), engine.add(prompt, **params)
    engine.run()
    failed(engine.results[bad], "not a number")
    assert engine.results[neighbour].tokens == StepEngine(module).generate([5, 6, 7]).tokens
    heal(poisoned)
    again = engine.generate(prompt)
    assert again.tokens == StepEngine(module).generate(prompt).tokens
    assert (again.last.cached_tokens or 0) <= at


def test_requests_that_share_what_is_no_number_leave_nothing_of_it(poisoned: PreTrainedModel, module: PreTrainedModel):
    stem = [*range(20), BAD, *range(20)]
    engine = StepEngine(poisoned, chunk=8)
    rids = [engine.add([*stem, n]) for n in range(4)]
    engine.steps(4)
    rids += [engine.add([*stem, n]) for n in range(4, 6)]
    engine.run()
    for rid in rids:
        failed(engine.results[rid], "not a number")
    heal(poisoned)
    assert engine.generate([*stem, 1]).tokens == StepEngine(module).generate([*stem, 1]).tokens


# -- aborts and clients that go away -----------------------------------------------------------------------------------


def test_a_thousand_aborts_between_steps(module: PreTrainedModel):
    """Of requests that wait, compile, are read in chunks, decode, draft, jump, are retracted or have finished."""
    rng = random.Random(0)
    engine = StepEngine(module, slots=160, rows=6, chunk=16, conservativeness=0.0, drafted=4)
    kinds: list[dict[str, Any]] = [
        {}, {"temperature": 1.0}, {"regex": "(forced text [a-z]{3} )+"}, {"regex": "a{1,9}"}, {"stop": ["a"]},
        {"ignore_eos": True},
    ]  # fmt: skip
    aborted = 0
    while aborted < 1000:
        while len(engine.engine.scheduler.waiting) < 12:
            prompt = [*range(rng.choice([3, 20])), rng.randrange(250), *range(rng.randrange(40))]
            engine.add(prompt, max_new_tokens=rng.randrange(60), **rng.choice(kinds))
            engine.steps(rng.random() < 0.3)
        engine.steps(rng.randrange(6))
        under_way = [rid for rid, result in engine.results.items() if not result.outputs]
        for rid in rng.sample(under_way, min(len(under_way), rng.randrange(20))):
            engine.abort(rid)
            aborted += 1
    engine.run()
    kinds_of_end = {result.finish["type"] for result in engine.results.values()}
    assert kinds_of_end == {"abort", "length", "stop"}
    assert sum(result.finish["type"] == "abort" for result in engine.results.values()) > 900
    assert all(len(result.outputs) == 1 for result in engine.results.values())
    all_is_free(engine.engine)


def request(rid: str, prompt: list[int], **params: Any) -> Request:
    return Request(rid=rid, prompt=Prompt(prompt), params=SamplingParams.from_json(LONG | params), stream_interval=1)


@contextlib.asynccontextmanager
async def serving(module: PreTrainedModel, on_failure: Callable[[], None] = lambda: None):
    engine = AsyncEngine(Model(module, byte_tokenizer()), SETTINGS, on_failure)
    try:
        yield engine
    finally:
        engine.engine.close()


async def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it never came true"
        await asyncio.sleep(0.001)


def test_a_thousand_clients_that_go_away_at_random_moments(module: PreTrainedModel):
    rng = random.Random(0)

    async def client(engine: AsyncEngine, n: int) -> None:
        params = rng.choice([{}, {"temperature": 1.0}, {"regex": "(forced text [a-z]{3} )+"}])
        async with contextlib.aclosing(engine.run([request(str(n), [n % 250, n // 250], **params)])) as outputs:
            async for _ in outputs:
                pass

    async def leave(task: asyncio.Task[None]) -> None:
        await asyncio.sleep(rng.random() * 0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def main() -> None:
        async with serving(module) as engine:
            for hundred in range(10):
                clients = range(hundred * 100, hundred * 100 + 100)
                await asyncio.gather(*(leave(asyncio.create_task(client(engine, n))) for n in clients))
            await until(
                lambda: not engine.engine.busy and not engine.engine._compiling and engine.engine._inbox.empty()
            )
            async with contextlib.aclosing(engine.run([request("last", [1], max_new_tokens=3)])) as outputs:
                assert [len(output.token_ids) async for _, output in outputs] == [1, 1, 1]
        all_is_free(engine.engine)

    asyncio.run(main())


def test_the_slots_of_a_client_that_goes_away_are_free_after_the_step_under_way(module: PreTrainedModel):
    async def main() -> None:
        async with serving(module) as engine:
            log, scheduler = engine.engine.log, engine.engine.scheduler
            for n in range(20):
                outputs = engine.run([request(str(n), [n, 1, 2], max_new_tokens=400)])
                await anext(outputs)
                await outputs.aclose()
                left_at = log.steps
                await until(lambda: not scheduler.running)
                assert log.steps <= left_at + 1
                assert scheduler.used == 0

    asyncio.run(main())


# -- the engine's thread -----------------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that fails in the third step of a request that begins with token 13."""

    def forward(self: Model, batch: Batch, cache: Any) -> Tensor:
        if any(s.sequence.tokens[0] == 13 and s.sequence.output_length == 2 for s in batch.segments):
            raise ZeroDivisionError("broken on purpose")
        return compute(self, batch, cache)

    compute = Model.forward
    monkeypatch.setattr(Model, "forward", forward)


@pytest.mark.usefixtures("broken")
def test_everybody_is_told_when_the_engine_fails(module: PreTrainedModel):
    """Those who run, those who wait for a row, and whoever comes later; and the failure is reported once."""
    reports: list[int] = []

    async def last(engine: AsyncEngine, asked: Request) -> Output:
        async with contextlib.aclosing(engine.run([asked])) as outputs:
            return [output async for _, output in outputs][-1]

    async def main() -> None:
        async with serving(module, lambda: reports.append(1)) as engine:
            asked = [request(str(n), [first, 1, 2]) for n, first in enumerate([13, *range(12)])]
            outputs = await asyncio.wait_for(asyncio.gather(*(last(engine, each) for each in asked)), 30)
            for output in outputs:
                assert output.finish_reason is not None
                assert output.finish_reason["status_code"] == 500
                assert "broken on purpose" in output.finish_reason["message"]
            assert not await engine.is_healthy(1)
            with pytest.raises(RequestError, match="has failed") as refusal:
                engine.check([request("late", [1])])
            assert refusal.value.status == 503
            await until(lambda: bool(reports))

    asyncio.run(main())


def test_to_be_idle_for_long_is_no_hang(module: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    """In the first step after a pause, the watchdog sees how old the step is, not how long the pause was."""
    ages: list[float] = []

    async def main() -> None:
        async with serving(module) as engine:
            model = engine.engine.model
            compute = model.forward

            def forward(batch: Batch, cache: Any) -> Tensor:
                ages.append(time.monotonic() - engine.engine.last_progress)
                return compute(batch, cache)

            monkeypatch.setattr(model, "forward", forward)
            engine.engine.last_progress -= 1000
            async with contextlib.aclosing(engine.run([request("a", [1], max_new_tokens=2)])) as outputs:
                async for _ in outputs:
                    pass

    asyncio.run(main())
    assert len(ages) == 2
    assert max(ages) < 500
