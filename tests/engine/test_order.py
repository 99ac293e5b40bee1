"""The order in which waiting requests are served, by policy. One row: they finish in the order in which they begin."""

from __future__ import annotations

import random

import pytest

from kernel_engine.order import LONGEST_PREFIX_QUEUE

from .simulation import Simulation


def served(simulation: Simulation, prompts: dict[str, list[int]], **priorities: int) -> list[str]:
    """Names of the prompts in the order in which they were served; the longer the name, the longer the output."""
    names = {
        id(simulation.add(prompt, len(name), priority=priorities.get(name, 0))): name
        for name, prompt in prompts.items()
    }
    simulation.run()
    return [names[id(sequence)] for sequence in simulation.finished if id(sequence) in names]


def with_cached(order: str, *prompts: list[int]) -> Simulation:
    simulation = Simulation(slots=10_000, rows=1, order=order)
    for prompt in prompts:
        simulation.add(prompt)
    simulation.run()
    return simulation


A, AB, AC, D = [1] * 10, [1] * 10 + [2] * 10, [1] * 10 + [3] * 10, [4] * 30
PROMPTS = {
    "new": [9, 9],
    "d": [*D, 0],
    "ab": [*AB, 0],
    "ac": [*AC, 0],
    "a": [*A, 0],
    "also ac": [*AC, 5],
    "third ac": [*AC, 6],
}


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("fcfs", ["new", "d", "ab", "ac", "a", "also ac", "third ac"]),
        ("lpm", ["d", "ab", "ac", "also ac", "third ac", "a", "new"]),
        ("lof", ["third ac", "also ac", "new", "ab", "ac", "d", "a"]),
        # Five wait below A, three of them below AC; once two of those are served, none of the branches is before another.
        ("dfs-weight", ["new", "a", "ac", "also ac", "ab", "d", "third ac"]),
    ],
)
def test_who_is_served_when(order: str, wanted: list[str]):
    assert served(with_cached(order, D, A, AB, AC), PROMPTS) == wanted


def test_a_random_order_is_an_order_and_another_each_time():
    simulation = with_cached("random")
    prompts = {f"{n:02}": [n, n] for n in range(20)}
    orders = [served(simulation, prompts) for _ in range(3)]
    assert all(sorted(order) == list(prompts) for order in orders)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("order", ["fcfs", "random", "lpm", "lof", "dfs-weight"])
def test_priority_comes_before_any_policy(order: str):
    found = served(with_cached(order, D, A, AB, AC), PROMPTS, new=2, a=1)
    assert found[:2] == ["new", "a"]


@pytest.mark.parametrize("order", ["lpm", "dfs-weight"])
def test_a_long_queue_is_served_as_it_came(order: str):
    simulation = with_cached(order, A)
    prompts = {str(n): [random.Random(n).randrange(5, 9), n] for n in range(LONGEST_PREFIX_QUEUE)} | {"a": [*A, 0]}
    found = served(simulation, prompts)
    assert found.index("a") >= 1
    assert found[0] == "0"
