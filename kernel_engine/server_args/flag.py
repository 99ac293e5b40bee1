"""What one command-line flag is: its words, its limits, and whether it has its effect here, changes nothing, or is refused.

Every flag of SGLang's exists. One without its effect says so in one sentence: no flag is silently ignored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field
from typing import Any, Literal

from ..errors import LoadError

Status = Literal["effective", "noted", "refused"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must do or be, in `words` that follow "must"."""

    holds: Callable[[Any], bool]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """`why` is a sentence for a flag that is noted (accepted, since no value of it changes anything here) or refused.

    `choices` are the only values, `refuses` are values that SGLang has and this engine has not, with the reason, `needs` is
    the field without which this one changes nothing, `also` are other spellings, and `sglangs` is SGLang's default where this
    engine's differs. The default is always allowed.
    """

    help: str
    status: Status
    why: str = ""
    choices: tuple[Any, ...] = ()
    refuses: Mapping[str, str] = field(default_factory=dict)
    rule: Rule | None = None
    needs: str = ""
    also: tuple[str, ...] = ()
    sglangs: str = ""

    @property
    def words(self) -> str:
        """What it is, and then why it is not used here, or all that may be chosen."""
        if self.why:
            return f"{self.help}. {self.why[0].upper()}{self.why[1:]}"
        named = all(str(choice) in self.help for choice in self.choices)
        choices = "" if named else f": {', '.join(map(str, self.choices))}"
        needs = f"; needs {spelling(self.needs)}" if self.needs else ""
        return self.help + choices + needs + (f"; SGLang's default is {self.sglangs}" if self.sglangs else "")

    def check(self, name: str, value: Any, default: Any) -> None:
        """Raise `LoadError` if the flag called `name` cannot have this value."""
        if value == default:
            return
        if self.status == "refused":
            raise LoadError(f"{name} is not supported: {self.why}")
        if isinstance(value, str) and value in self.refuses:
            raise LoadError(f"{name} {value} is not supported: {self.refuses[value]}")
        if self.choices and value not in self.choices:
            raise LoadError(f"{name} must be one of {', '.join(map(str, self.choices))}, got {value!r}.")
        if self.rule and not self.rule.holds(value):
            raise LoadError(f"{name} must {self.rule.words}, got {value!r}.")


def at_least(bound: float) -> Rule:
    return Rule(lambda value: value >= bound, f"be at least {bound:g}")


NOT_EMPTY = Rule(bool, "not be empty")
RISING = Rule(lambda bounds: all(low < high for low, high in itertools.pairwise(bounds)), "rise")


def some_of(names: Sequence[str]) -> Rule:
    """Of a value that is a list of names with commas between."""
    return Rule(lambda value: set(value.split(",")) <= set(names), f"name some of {', '.join(names)}")


def effective(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field for a flag that does what `help` says."""
    return _field(default, Flag(help=help, status="effective", **limits))


def noted(default: Any, help: str, why: str, **limits: Any) -> Any:
    """A dataclass field for a flag of which no value changes anything here, because of `why`; the log says so once."""
    return _field(default, Flag(help=help, status="noted", why=why, **limits))


def refused(default: Any, help: str, why: str, **limits: Any) -> Any:
    """A dataclass field for a flag that may only have its default, because of `why`, which says what to use instead."""
    return _field(default, Flag(help=help, status="refused", why=why, **limits))


def _field(default: Any, flag: Flag) -> Any:
    return field(default=default, metadata={"flag": flag})


def flag_of(each: Field[Any]) -> Flag:
    return each.metadata["flag"]


def spelling(field_name: str) -> str:
    """The flag's name on the command line."""
    return f"--{field_name.replace('_', '-')}"


def default_words(each: Field[Any]) -> str:
    """The default, if it says anything."""
    return "" if each.default is None or each.default is False or each.default == "{}" else str(each.default)
