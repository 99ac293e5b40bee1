"""With images in prompts too, greedy tokens are those of transformers' own `generate` in fp32, however they are computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from PIL.Image import Image

from kernel_engine.model import Model
from kernel_engine.vision.prompt import Prompt

from .sighted import CONFIGS, IMAGES, SAME_SIZE, SightedOracle, image, model_of, picture, prompt, shown
from .support import StepEngine

BEFORE, AFTER, OTHER = [10, 11, 12, 13], [20, 21, 22], [30, 31, 32, 33, 34]
COUNT = 12


@dataclass
class Twins:
    """An engine's model, and transformers' word on the same weights."""

    model: Model
    oracle: SightedOracle
    images: dict[int, list[Image]] = field(default_factory=dict)

    def prompt(self, ids: list[int], images: list[Image]) -> Prompt:
        made = prompt(self.model, ids, images)
        self.images[id(made)] = images
        return made

    def check(self, engine: StepEngine) -> None:
        for rid, result in engine.results.items():
            made = engine.requests[rid].prompt
            wanted = self.oracle.tokens(made, self.images.get(id(made), []), COUNT)
            assert result.tokens == wanted, rid


@pytest.fixture(scope="module", params=CONFIGS)
def twins(request: pytest.FixtureRequest) -> Twins:
    return Twins(model_of(request.param), SightedOracle(request.param))


@pytest.fixture
def prompts(twins: Twins) -> list[Prompt]:
    """Text alone; one image after, before and between texts; three of different sizes; two of which one comes twice."""
    one, two, three = IMAGES
    return [
        Prompt(BEFORE + OTHER),
        twins.prompt([*shown(1), *AFTER], [one]),
        twins.prompt([*BEFORE, *shown(1)], [two]),
        twins.prompt([*BEFORE, *shown(1), *AFTER], [three]),
        twins.prompt([*BEFORE, *shown(2), *AFTER, *shown(1), *OTHER], [one, two, three]),
        twins.prompt([*shown(1), *AFTER, *shown(2), *OTHER], [one, three, one]),
    ]


def test_alone(twins: Twins, prompts: list[Prompt]):
    for each in prompts:
        engine = StepEngine(twins.model)
        engine.generate(each, max_new_tokens=COUNT)
        twins.check(engine)


@pytest.mark.parametrize("chunk", [512, 7])
@pytest.mark.parametrize("share", [True, False])
def test_in_a_ragged_batch(twins: Twins, prompts: list[Prompt], chunk: int, share: bool):
    """Chunks of seven tokens cut every image in two or more."""
    engine = StepEngine(twins.model, chunk=chunk, share_prefixes=share)
    for each in prompts:
        engine.add(each, max_new_tokens=COUNT)
        engine.step()
    engine.run()
    twins.check(engine)


def test_with_each_token_as_a_query_of_its_own(twins: Twins, prompts: list[Prompt]):
    """The layout of short steps on a GPU, computed without its kernel."""
    engine = StepEngine(twins.model, chunk=7)
    engine.engine.model.query_tokens = 32
    for each in prompts:
        engine.add(each, max_new_tokens=COUNT)
    engine.run()
    twins.model.query_tokens = 0
    twins.check(engine)


def test_after_retraction(twins: Twins, prompts: list[Prompt]):
    engine = StepEngine(twins.model, slots=130, conservativeness=0.0)
    for each in prompts:
        engine.add(each, max_new_tokens=COUNT, ignore_eos=True)
    engine.run()
    assert sum(result.last.retractions for result in engine.results.values()) >= 1
    for rid, result in engine.results.items():
        made = engine.requests[rid].prompt
        wanted = twins.oracle.tokens(made, twins.images.get(id(made), []), COUNT)
        assert result.tokens[: len(wanted)] == wanted


def test_another_question_on_the_same_image_computes_the_question_only(twins: Twins):
    engine, sight = StepEngine(twins.model), twins.model.sight
    assert sight
    first = twins.prompt([*BEFORE, *shown(1), *AFTER], IMAGES[:1])
    second = twins.prompt([*BEFORE, *shown(1), *OTHER], IMAGES[:1])
    engine.generate(first, max_new_tokens=COUNT)
    computed = sight.computed
    result = engine.generate(second, max_new_tokens=COUNT)
    assert result.last.cached_tokens == len(second.ids) - len(OTHER)
    assert sight.computed == computed
    twins.check(engine)


def test_an_answer_goes_on_as_a_conversation(twins: Twins):
    engine = StepEngine(twins.model)
    first = twins.prompt([*BEFORE, *shown(1), *AFTER], IMAGES[:1])
    answer = engine.generate(first, max_new_tokens=8, ignore_eos=True).tokens
    follow_up = [*BEFORE, *shown(1), *AFTER, *answer, *OTHER]
    second = engine.add(twins.prompt(follow_up, IMAGES[:1]), max_new_tokens=COUNT)
    engine.run()
    assert engine.results[second].last.cached_tokens >= len(first.ids)
    made = engine.requests[second].prompt
    assert engine.results[second].tokens == twins.oracle.tokens(made, IMAGES[:1], COUNT)


def test_another_image_of_the_same_size_is_never_a_prefix_hit(twins: Twins):
    engine = StepEngine(twins.model)
    answers = []
    for each in (IMAGES[0], SAME_SIZE):
        result = engine.generate(twins.prompt([*BEFORE, *shown(1), *AFTER], [each]), max_new_tokens=COUNT)
        answers.append(result.tokens)
    assert result.last.cached_tokens == len(BEFORE) + 1
    assert answers[0] != answers[1], "the images make no difference, so this test cannot fail"
    twins.check(engine)


def test_forks_over_one_image_compute_it_once(twins: Twins):
    sight = twins.model.sight
    assert sight
    sight._kept.clear()
    engine, computed = StepEngine(twins.model), sight.computed
    for tail in (AFTER, OTHER, [40], [50, 51]):
        engine.add(twins.prompt([*BEFORE, *shown(1), *tail], IMAGES[1:2]), max_new_tokens=COUNT)
    engine.run()
    assert sight.computed == computed + 1
    twins.check(engine)


def test_an_image_is_computed_once_for_different_prompts_that_show_it(twins: Twins):
    sight = twins.model.sight
    assert sight
    engine = StepEngine(twins.model)
    engine.generate(twins.prompt([*BEFORE, *shown(1)], IMAGES[2:]), max_new_tokens=COUNT)
    computed = sight.computed
    result = engine.generate(twins.prompt([*OTHER, *shown(1)], IMAGES[2:]), max_new_tokens=COUNT)
    assert (result.last.cached_tokens, sight.computed) == (0, computed)
    twins.check(engine)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 500), (500, 3), (28, 900), (640, 480)])
def test_an_image_of_any_size_has_an_embedding_for_each_place(twins: Twins, size: tuple[int, int]):
    made = picture(twins.model, image(*size, seed=5), -1000 - 2 * size[0] - 2000 * size[1])
    assert twins.model.sight
    assert len(twins.model.sight.embeddings(made)) == made.tokens > 0
