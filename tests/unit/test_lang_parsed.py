"""Schemas of Python types, and the objects that generated text stands for."""

from __future__ import annotations

import enum
import json
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, TypedDict, Union

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lang.program import begin_state
from sgl_jupyter.lang.schema import parser, schema_text

from .fake_backend import FakeBackend


class House(enum.Enum):
    GRYFFINDOR = "Gryffindor"
    SLYTHERIN = "Slytherin"


class Wand(TypedDict):
    wood: str
    length: NotRequired[float]


Age = NewType("Age", int)


@dataclass
class Character:
    name: str
    house: House
    wand: Wand
    age: Optional[Age] = None  # noqa: UP045 (both ways to write it are read)
    friends: list[Character] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    kind: Literal["student", "teacher"] = "student"
    seat: tuple[int, str] = (0, "")
    any: Annotated[Any, "whatever"] = None


HARRY = {
    "name": "Harry",
    "house": "Gryffindor",
    "wand": {"wood": "holly", "length": 11},
    "friends": [{"name": "Ron", "house": "Gryffindor", "wand": {"wood": "ash"}, "age": 12}],
    "marks": {"flying": 1},
    "seat": [7, "left"],
}


def test_a_dataclass_has_a_schema_with_every_named_type_once() -> None:
    schema = json.loads(schema_text(Character))
    character = schema["$defs"]["Character"]
    assert schema["$ref"] == "#/$defs/Character"
    assert character["required"] == ["name", "house", "wand"]
    assert character["additionalProperties"] is False
    assert character["properties"]["friends"] == {"type": "array", "items": {"$ref": "#/$defs/Character"}}
    assert character["properties"]["age"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert character["properties"]["kind"] == {"enum": ["student", "teacher"]}
    assert schema["$defs"]["House"] == {"enum": ["Gryffindor", "Slytherin"]}
    assert schema["$defs"]["Wand"]["required"] == ["wood"]


def test_the_text_becomes_an_object_of_the_type() -> None:
    harry = parser(Character)(json.dumps(HARRY))
    ron = Character("Ron", House.GRYFFINDOR, {"wood": "ash"}, age=Age(12))
    assert harry == Character(
        "Harry",
        House.GRYFFINDOR,
        {"wood": "holly", "length": 11.0},
        friends=[ron],
        marks={"flying": 1},
        seat=(7, "left"),
    )
    assert isinstance(harry.wand["length"], float)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, bool], '{"a": true}', {"a": True}),
        (Union[int, str], '"x"', "x"),  # noqa: UP007
        (int | None, "null", None),
        (Literal["a", 1], "1", 1),
        (Any, "[1]", [1]),
        (float, "1", 1.0),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ('{"type": "array"}', "[1]", [1]),
    ],
)
def test_types_of_all_kinds_have_a_schema_and_are_read(kind: Any, text: str, value: Any) -> None:
    json.loads(schema_text(kind))
    assert parser(kind)(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [(int, "true"), (int, '"1"'), (Character, "[]"), (Character, "{}"), (House, '"None"'), (int | None, '"x"')],
)
def test_what_does_not_fit_is_no_object_of_the_type(kind: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        parser(kind)(text)


def test_pydantic_models_read_themselves_alone_or_within_other_types() -> None:
    pydantic = pytest.importorskip("pydantic")
    module = sys.modules[__name__]

    class Pet(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=8)
        parts: list[Pet] = pydantic.Field(default_factory=list)

    module.Pet = Pet  # pyright: ignore[reportAttributeAccessIssue]
    try:
        Pet.model_rebuild()
        schema = json.loads(schema_text(list[Pet]))
        assert schema["items"] == {"$ref": "#/$defs/Pet"}
        assert schema["$defs"]["Pet"]["properties"]["name"]["maxLength"] == 8
        assert parser(Pet)('{"name": "Rex"}') == Pet(name="Rex")
        with pytest.raises(ValueError, match="8 characters"):
            parser(Pet)('{"name": "Rumpelstilzchen"}')
    finally:
        del module.Pet  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("schema", "error", "message"),
    [
        (set, TypeError, "cannot be made of <class 'set'>"),
        (7, TypeError, "cannot be made of 7"),
        ("{", ValueError, "json_schema is not JSON"),
        ("[]", ValueError, "must be a JSON object"),
    ],
)
def test_what_is_no_schema_is_told_where_it_is_written(schema: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sgl.gen("x", json_schema=schema)


def test_a_state_gives_the_object_beside_the_text() -> None:
    backend = FakeBackend(json.dumps(HARRY))
    s = begin_state(backend)
    s += sgl.gen("x", json_schema=Character)
    assert s["x"] == s.text() == json.dumps(HARRY)
    assert s.get_parsed("x").house is House.GRYFFINDOR
    assert json.loads(backend.requests[0][1].json_schema or "")["$ref"] == "#/$defs/Character"


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [(int, "42 ", 42), (float, ".5\n", 0.5), (bool, "False", False), ("bool", "True", True), (str, '"a b"', "a b")],
)
def test_a_dtype_gives_its_value_too(dtype: Any, text: str, value: Any) -> None:
    s = begin_state(FakeBackend(text))
    s += sgl.gen("x", dtype=dtype)
    assert (s["x"], s.get_parsed("x")) == (text, value)


def test_n_samples_are_n_objects_and_forks_know_their_parents_types() -> None:
    s = begin_state(FakeBackend("7"))
    s += sgl.gen("x", dtype=int, n=2)
    assert s.get_parsed("x") == s.fork(1)[0].get_parsed("x") == [7, 7]


def test_a_text_that_was_cut_short_is_no_object_and_says_why() -> None:
    class Cut(FakeBackend):
        async def generate(self, prompt: Any, params: Any) -> Any:
            async for chunk in super().generate(prompt, params):
                chunk.meta_info["finish_reason"] = {"type": "length"}
                yield chunk

    s = begin_state(Cut('{"name": "Har'))
    s += sgl.gen("x", json_schema={"type": "object"})
    with pytest.raises(ValueError, match="'x' is not what its schema says: it needs more max_tokens"):
        s.get_parsed("x")


def test_a_variable_without_a_type_has_no_object() -> None:
    s = begin_state(FakeBackend("7"))
    s += sgl.gen("x", dtype=int) + sgl.gen("x")
    with pytest.raises(TypeError, match="'x' has no type: give its gen a json_schema or a dtype"):
        s.get_parsed("x")
    with pytest.raises(KeyError):
        s.get_parsed("unknown")
