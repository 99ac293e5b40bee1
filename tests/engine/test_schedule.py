"""The scheduler, with a model that costs nothing: everything completes, nothing is lost, nobody waits for ever."""

from __future__ import annotations

import random

import pytest

from kernel_engine.order import PATIENCE

from .simulation import END, Guesses, Simulation, completion


def random_trace(seed: int) -> None:
    """A few dozen requests with shared stems arrive, run, are aborted and retracted, under random limits, some with drafts."""
    rng = random.Random(seed)
    slots, share, errors = rng.choice([48, 64, 128, 1000]), rng.random() < 0.8, rng.choice([None, None, 0.0, 0.3])
    simulation = Simulation(
        slots,
        rows=rng.choice([1, 2, 5, 32]),
        context=slots,
        chunk=rng.choice([1, 3, 8, 64]),
        max_prefill=rng.choice([2, 16, 1 << 30]),
        order=rng.choice(["lpm", "lpm", "fcfs", "random", "lof", "dfs-weight"]),
        share_prefixes=share,
        conservativeness=rng.choice([0.0, 1.0]),
    )
    stems = [[rng.randrange(1, 4) for _ in range(rng.randrange(1, 25))] for _ in range(3)]
    added = []
    for _ in range(rng.randrange(2, 25)):
        prompt = rng.choice(stems) + [rng.randrange(1, 4) for _ in range(rng.randrange(0, 6))]
        count = rng.choice([0, 1, 5, slots - len(prompt)])
        scored = rng.choice([None, None, rng.randrange(len(prompt))])
        guesses = None if errors is None else Guesses(prompt, count, errors, seed)
        added.append(simulation.add(prompt, count, priority=rng.randrange(-1, 2), score_from=scored, drafter=guesses))
        for _ in range(rng.choice([0, 0, 1, 4])):
            if simulation.scheduler.running or simulation.scheduler.waiting:
                simulation.step()
        if rng.random() < 0.15:
            simulation.abort(rng.choice(added))
    aborted = set(simulation.finished)
    simulation.run()
    assert sorted(map(id, simulation.finished)) == sorted(map(id, added)), "a request was lost or finished twice"
    for sequence in added:
        answer = sequence.tokens[sequence.prompt_length :]
        wanted = completion(sequence.request.input_ids, sequence.max_new_tokens)
        assert answer == wanted[: len(answer)]
        assert len(answer) == len(wanted) or sequence in aborted
        if not share:
            assert not sequence.cached_tokens
        wanted_logprobs = sequence.request.logprobs
        if wanted_logprobs and sequence not in aborted:
            assert (sequence.cached_tokens or 0) <= wanted_logprobs.start
            assert wanted_logprobs.start + len(sequence.input_logprobs) == sequence.prompt_length
    assert simulation.scheduler.flush()
    assert simulation.scheduler.pool.free_count == slots


@pytest.mark.parametrize("hundred", range(8))
def test_random_traces(hundred: int):
    for seed in range(hundred * 100, hundred * 100 + 100):
        random_trace(seed)


def test_retraction_happens_and_changes_nothing():
    simulation = Simulation(slots=60, context=60, conservativeness=0.0)
    sequences = [simulation.add([n] * 8, 45) for n in range(1, 6)]
    simulation.run()
    assert sum(s.retractions for s in sequences) >= 2
    for sequence in sequences:
        assert sequence.tokens[8:] == completion([*sequence.request.input_ids], 45)


def test_the_first_running_request_is_never_retracted():
    simulation = Simulation(slots=60, context=60, conservativeness=0.0)
    first = simulation.add([1] * 8, 52)
    others = [simulation.add([n] * 8, 45) for n in range(2, 6)]
    simulation.run()
    assert first.retractions == 0
    assert sum(s.retractions for s in others) > 0


@pytest.mark.parametrize("order", ["lpm", "fcfs", "random"])
def test_nobody_waits_for_ever_under_a_stream_of_better_prefixes(order: str):
    simulation = Simulation(slots=500, rows=1, order=order)
    popular = [1] * 50
    simulation.add(popular)
    simulation.run()
    lonely = simulation.add([2] * 10)
    simulation.add([*popular, 3])
    for n in range(2 * PATIENCE):
        if lonely in simulation.finished:
            break
        # One comes for each that goes: the queue stays short, and is served by prefix.
        simulation.add([*popular, 4, n])
        simulation.step()
    assert lonely in simulation.finished
    assert len(simulation.scheduler.waiting) < 5


def test_a_big_request_is_not_starved_by_small_ones():
    simulation = Simulation(slots=100, context=100, conservativeness=1.5, order="fcfs")
    for n in range(4):
        simulation.add([1, n], 20)
    simulation.step()
    big = simulation.add([2] * 80, 10)
    for n in range(300):
        if big in simulation.finished:
            break
        simulation.add([3, n % 90], 20)
        simulation.step()
    assert big in simulation.finished


def test_longest_cached_prefix_goes_first():
    simulation = Simulation(slots=500, rows=1)
    simulation.add([1] * 30)
    simulation.run()
    cold, warm, warmer = (simulation.add(p) for p in ([2] * 5, [1] * 10 + [3], [1] * 20 + [3]))
    simulation.run()
    assert simulation.finished[1:] == [warmer, warm, cold]


def test_first_come_first_served_when_asked_for():
    simulation = Simulation(slots=500, rows=1, order="fcfs")
    simulation.add([1] * 30)
    simulation.run()
    sequences = [simulation.add(p) for p in ([2] * 5, [1] * 10 + [3], [1] * 20 + [3])]
    simulation.run()
    assert simulation.finished[1:] == sequences


def test_a_higher_priority_goes_before_a_longer_prefix():
    simulation = Simulation(slots=500, rows=1)
    simulation.add([1] * 30)
    simulation.run()
    warm, urgent, idle = (
        simulation.add([1] * 20),
        simulation.add([2] * 20, priority=5),
        simulation.add([3], priority=-5),
    )
    simulation.run()
    assert simulation.finished[1:] == [urgent, warm, idle]


def test_a_step_computes_no_more_prompt_tokens_than_allowed():
    simulation = Simulation(slots=2000, chunk=64, share_prefixes=False)
    for n in range(10):
        simulation.add([n] * 50, 3)
    while simulation.scheduler.waiting:
        before = simulation.prompt_computed
        simulation.step()
        # A running request gets one token a step even when the budget is spent.
        assert simulation.prompt_computed - before <= 64 + len(simulation.scheduler.running)


def test_decoding_goes_on_while_a_long_prompt_is_read():
    simulation = Simulation(slots=2000, chunk=16)
    decoding = simulation.add([1] * 4, 200, answer=[5] * 200)
    simulation.step()
    simulation.add([2] * 400)
    before = decoding.output_length
    for _ in range(10):
        simulation.step()
    assert decoding.output_length == before + 10


def test_those_who_wait_for_a_prefix_go_on_when_its_owner_is_aborted():
    simulation = Simulation(slots=2000, chunk=16)
    owner, heir = simulation.add([1] * 100 + [2]), simulation.add([1] * 100 + [3])
    simulation.step()
    assert heir in simulation.scheduler.waiting
    simulation.abort(owner)
    simulation.run()
    assert heir.cached_tokens == 16


def test_flush_is_refused_while_requests_are_under_way():
    simulation = Simulation(slots=100)
    simulation.add([1] * 10)
    assert not simulation.scheduler.flush()
    simulation.step()
    simulation.run()
    assert simulation.scheduler.tree.size > 0
    assert simulation.scheduler.flush()
    assert simulation.scheduler.tree.size == 0


def test_the_end_token_ends():
    simulation = Simulation(slots=100)
    sequence = simulation.add([1] * 10, 20, answer=[4, 5, END, 6])
    simulation.run()
    assert sequence.tokens[10:] == [4, 5, END]
