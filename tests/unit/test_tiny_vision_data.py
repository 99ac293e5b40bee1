"""tiny-vision's images and questions: answers agree with what is drawn, and training sees what the processor makes."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import numpy as np
import pytest

training = pytest.importorskip("training", reason="the training folder is not part of the installed package")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training.dialogue import Split, cut_at, generation_points  # noqa: E402
from training.facts import Wordings  # noqa: E402
from training.vision import fonts, wordings, words  # noqa: E402
from training.vision.charts import make_chart  # noqa: E402
from training.vision.dialogues import about_one, about_several  # noqa: E402
from training.vision.drawing import blank, paint  # noqa: E402
from training.vision.forward import read, see, text_positions, vision_positions  # noqa: E402
from training.vision.model import IMAGE, PatchEmbedding, build, tokenizer  # noqa: E402
from training.vision.patches import grid_of, patches_of, pick_grid, processor, resized, sizes_by_grid  # noqa: E402
from training.vision.places import MAKERS, side_of  # noqa: E402
from training.vision.questions import plural, with_article  # noqa: E402
from training.vision.scenes import FORMS, Scene, make_scene  # noqa: E402
from training.vision.sequences import collate, row_of  # noqa: E402
from training.vision.targets import LETTERS, labels  # noqa: E402

FOLDER = Path(__file__).parents[2] / "kernel_engine" / "bundled" / "tiny-vision"


def scene_of(rng: Random, split: Split = "train", form: str | None = None) -> Scene:
    grid = pick_grid(rng)
    return make_scene(rng, split, rng.choice(sizes_by_grid()[grid]), grid, form)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return build(tokenizer()).eval()


@pytest.mark.parametrize("seed", range(4))
def test_patches_equal_the_processors(seed: int) -> None:
    rng = Random(seed)
    scene = scene_of(rng)
    image = paint(rng, scene)
    made = processor()(image, return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, scene.grid[0] * 2, scene.grid[1] * 2]]
    ours = patches_of(torch.from_numpy(resized(image, scene.grid).copy())[None])[0]
    frames = made["pixel_values"].view(len(ours), 3, 2, -1)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    torch.testing.assert_close(ours, frames[:, :, 0].reshape(len(ours), -1), atol=1e-5, rtol=0)


def test_every_size_has_the_grid_it_is_filed_under() -> None:
    for grid, sizes in sizes_by_grid().items():
        assert all(grid_of(*size) == grid for size in sizes[:20])
        assert 12 <= grid[0] * grid[1] <= 25


def test_the_forward_pass_equals_transformers(model) -> None:
    rng, grid, language = Random(2), (4, 5), model.model.language_model
    dialogues = [about_one(rng, "train", scene_of(rng, form="two"), 1) for _ in range(2)]
    rows = collate([row_of(rng, tokenizer(), d, grid) for d in dialogues], 4093)
    pixels = torch.randn(2, 80, 588)
    patch = PatchEmbedding()
    patch.whiten(pixels)
    patch.write_to(model)
    frames = pixels.view(160, 3, 1, -1).expand(160, 3, 2, -1).reshape(160, -1)
    lengths = [len(row_of(rng, tokenizer(), d, grid).ids) for d in dialogues]
    with torch.no_grad():
        seen = see(model.model.visual, patch.weight, pixels, *vision_positions(grid, 32))
        x = language.embed_tokens(rows.ids)
        x = x.masked_scatter((rows.ids == model.config.image_token_id)[..., None], seen)
        hidden = read(language, x, *text_positions(rows.places, 64, [8, 12, 12]), rows.mask.float())
        theirs = model.model(
            input_ids=rows.ids,
            attention_mask=(torch.arange(rows.ids.shape[1]) < torch.tensor(lengths)[:, None]).long(),
            mm_token_type_ids=(rows.ids == model.config.image_token_id).int(),
            pixel_values=frames,
            image_grid_thw=torch.tensor([[1, 8, 10]] * 2),
        ).last_hidden_state
    for ours, wanted, length in zip(hidden, theirs, lengths, strict=True):
        torch.testing.assert_close(ours[:length], wanted[:length], atol=2e-3, rtol=2e-3)


def test_a_branch_reads_as_a_dialogue_of_its_own(model) -> None:
    rng, grid, language = Random(4), (4, 4), model.model.language_model
    dialogue = about_one(rng, "train", scene_of(rng, form="one"), 3)
    together = row_of(Random(0), tokenizer(), dialogue, grid)
    last = together.groups.count(3)
    alone = type(dialogue)(dialogue.beginning, dialogue.branches[2:])
    state = Random(0)
    for _ in range(2):
        state.random()
    apart = row_of(state, tokenizer(), alone, grid)
    assert apart.ids[-last:] == together.ids[-last:]
    results = []
    for row in (together, apart):
        rows = collate([row], 4093)
        with torch.no_grad():
            x = language.embed_tokens(rows.ids)
            states = read(language, x, *text_positions(rows.places, 64, [8, 12, 12]), rows.mask.float())
        results.append(states[0, : len(row.ids)][-last:])
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)


def test_scenes_and_images_are_a_function_of_the_seed() -> None:
    def made(seed: int) -> bytes:
        rng = Random(seed)
        return b"".join(np.asarray(paint(rng, scene_of(rng))).tobytes() for _ in range(5))

    assert made(3) == made(3)
    assert made(3) != made(4)


@pytest.mark.parametrize("form", FORMS)
def test_things_are_inside_apart_and_visible(form: str) -> None:
    rng = Random(form)
    for _ in range(30):
        scene = scene_of(rng, form=form)
        image = np.asarray(paint(rng, scene)).astype(int)
        for thing in scene.things:
            assert 0 < thing.x < scene.width
            assert 0 < thing.y < scene.height
            if not thing.hollow and not scene.background.noise:
                drawn = image[int(thing.y), int(thing.x)]
                assert np.abs(drawn - thing.rgb).max() <= 2
        if scene.lettering and not scene.background.noise:
            ground = np.asarray(blank(scene.background, image.shape[1::-1])).astype(int)
            assert (np.abs(image - ground).sum(-1) > 60).sum() > 10


def test_labels_name_what_is_in_each_cell() -> None:
    rng = Random(8)
    for _ in range(40):
        scene = scene_of(rng)
        found = labels(scene)
        assert (found[:, 0] != 0).sum() <= len(scene.things)
        line = scene.lettering
        if (
            line
            and not line.angle
            and line.size > scene.unit * 28
            and scene.width > line.font.width(line.text, line.size)
        ):
            named = [LETTERS[i - 1] for i in found[:, 2:].flatten().tolist() if i > 0]
            assert sorted(named) == sorted(line.text.replace(" ", "")) or -1 in found[:, 2:]
    chart = make_chart(rng, "train", (200, 200), (5, 5))
    assert (labels(chart)[:, 0] > 0).any() or (labels(chart)[:, 2:] > 0).any()


def test_answers_agree_with_the_scene() -> None:
    rng, kinds = Random(6), set[str]()
    for _ in range(1500):
        scene = scene_of(rng)
        maker = rng.choice(list(MAKERS))
        asked = maker(rng, "train", scene)
        if asked is None:
            continue
        kinds.add(asked.kind.split(":")[0])
        names = {t.name for t in scene.things}
        if asked.kind.startswith("read: ") and scene.lettering:
            assert asked.answer == scene.lettering.text
        if asked.kind == "describe: 1":
            assert asked.answer.lower() == with_article(scene.things[0].name) + "."
        if asked.kind in ("describe: 2", "describe: 3"):
            assert all(name in asked.answer.lower() or plural(name) in asked.answer.lower() for name in names)
        if asked.kind.startswith("count"):
            assert asked.answer.split()[0] == asked.word
            assert int(asked.word) <= len(scene.things)
        if asked.kind == "beside" or asked.kind.startswith(("colour: ", "shape: ")):
            assert any(asked.word.removeprefix("a ").removeprefix("an ") in name for name in names)
        if asked.options:
            assert asked.word in asked.options
    assert {"describe", "count", "colour", "shape", "beside", "where", "exists", "read", "background"} <= kinds


def test_counts_are_right() -> None:
    rng = Random(9)
    count = next(maker for maker in MAKERS if maker.__name__ == "count")
    for _ in range(300):
        scene = scene_of(rng, form="groups")
        asked = count(rng, "train", scene)
        assert asked is not None
        name = " ".join(asked.answer.rstrip(".").split()[1:])
        for ending in ("", "s", "es"):
            bare = name.removesuffix(ending) if ending else name
            wanted = sum(
                bare in (t.shape, t.name, "shape", "object", f"{t.colour} shape", f"{t.colour} object")
                for t in scene.things
            )
            if wanted:
                assert wanted == int(asked.word)
                break
        else:
            assert asked.word == "0"


def test_sides_are_opposite() -> None:
    rng, opposite = Random(10), {"left": "right", "right": "left", "above": "below", "below": "above"}
    for _ in range(100):
        scene = scene_of(rng, form="two")
        first, second = scene.things
        sides, back = side_of(scene, first, second), side_of(scene, second, first)
        assert (sides is None) == (back is None)
        if sides is not None and back is not None:
            assert {opposite[s] for s in sides} == back


def test_what_is_held_out_is_never_trained_on() -> None:
    ways = [value for value in vars(wordings).values() if isinstance(value, Wordings)]
    assert len(ways) >= 18
    for way in ways:
        assert way.held_out
        assert not set(way.train) & set(way.held_out)
    assert not set(words.dictionary("train")) & set(words.dictionary("held_out"))
    trained = {font.path for family in fonts.families("train") for font in family}
    held_out = {font.path for family in fonts.families("held_out") for font in family}
    assert not (trained & held_out) - {None}


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_prompts_are_those_of_the_chat_template(split: Split) -> None:
    rng = Random(11)
    for i in range(60):
        scenes = [scene_of(rng, split), scene_of(rng, split)]
        made = about_several(rng, split, scenes, 2) if i % 4 == 0 else about_one(rng, split, scenes[0], 2)
        for _, segments in made.branches:
            whole = [*made.beginning, *segments]
            prompt, answer = cut_at(whole, generation_points(whole)[-1])
            assert answer.split("<|im_end|>")[0].strip()
            assert prompt.count(IMAGE) >= 1
            if "<|im_start|>" in prompt:
                turns = re.findall(r"<\|im_start\|>(\w+)\n", prompt)
                assert turns[-2:] == ["user", "assistant"]
                assert prompt.count("<|im_end|>\n") == len(turns) - 1


@pytest.mark.skipif(not (FOLDER / "model.safetensors").exists(), reason="tiny-vision is not there")
def test_the_folder_is_complete_small_and_renders_chats() -> None:
    from transformers import AutoImageProcessor, AutoTokenizer

    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 16_000_000
    words_of = AutoTokenizer.from_pretrained(FOLDER)
    for token in ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"):
        assert len(words_of(token)["input_ids"]) == 1
    parts = [{"type": "image"}, {"type": "text", "text": "What is in the image?"}]
    text = words_of.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
        "<|vision_end|>What is in the image?<|im_end|>\n<|im_start|>assistant\n"
    )
    plain = words_of.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert plain.endswith("<|im_start|>user\nHi<|im_end|>\n")
    shipped = AutoImageProcessor.from_pretrained(FOLDER, backend="pil")
    assert (shipped.size["shortest_edge"], shipped.size["longest_edge"]) == (112 * 112, 140 * 140)
