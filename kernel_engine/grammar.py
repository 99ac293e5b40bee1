"""Constraints on the output: compiled once, off the engine thread, and followed token by token by a matcher.

Source: xgrammar (github.com/mlc-ai/xgrammar). A constraint that cannot be compiled is a `RequestError` with the compiler's
sentence; both outcomes are cached.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from .errors import RequestError
from .sampling_params import Constraint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from xgrammar import CompiledGrammar

COMPILE_THREADS = 2


class Matcher(Protocol):
    """Where a sequence stands in its constraint."""

    def fill(self, bitmask: Tensor, row: int) -> None:
        """Set bit `t` of `bitmask[row]` (int32, 32 tokens a word) for each token `t` that may come next."""
        ...

    def accept(self, token: int) -> bool:
        """Go on by `token`; False, and no change, if the constraint does not allow it."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the output is complete and its end was accepted."""
        ...


class XGrammarMatcher:
    """A `Matcher` on an xgrammar automaton."""

    def __init__(self, compiled: CompiledGrammar):
        from xgrammar import GrammarMatcher

        self._matcher = GrammarMatcher(compiled)

    def fill(self, bitmask: Tensor, row: int) -> None:
        self._matcher.fill_next_token_bitmask(bitmask, row)  # pyright: ignore[reportArgumentType]

    def accept(self, token: int) -> bool:
        return self._matcher.accept_token(token)

    @property
    def finished(self) -> bool:
        return self._matcher.is_terminated()


class GrammarCompiler:
    """Compiles constraints for one vocabulary. `compile` is called on one thread only; the work is done on others."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, stop_tokens: list[int]):
        self._tokenizer, self._vocab_size, self._stop_tokens = tokenizer, vocab_size, stop_tokens
        self._threads = ThreadPoolExecutor(COMPILE_THREADS, thread_name_prefix="grammar")
        self._compiler = self._threads.submit(self._load)
        self._cache: dict[Constraint, Future[CompiledGrammar]] = {}

    def compile(self, constraint: Constraint) -> Future[CompiledGrammar]:
        """The compiled constraint, perhaps later; its error, if any, is a `RequestError`."""
        if constraint not in self._cache:
            self._cache[constraint] = self._threads.submit(self._compile, constraint)
        return self._cache[constraint]

    def clear(self) -> None:
        self._cache.clear()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _load(self):
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(
            self._tokenizer, vocab_size=self._vocab_size, stop_token_ids=self._stop_tokens
        )
        return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def _compile(self, constraint: Constraint) -> CompiledGrammar:
        compiler = self._compiler.result()
        compilers = {
            "regex": compiler.compile_regex,
            "json_schema": compiler.compile_json_schema,
            "ebnf": compiler.compile_grammar,
            "structural_tag": compiler.compile_structural_tag,
        }
        try:
            return compilers[constraint.kind](constraint.text)
        except Exception as error:  # xgrammar raises RuntimeError, TypeError and ValueError for bad constraints
            reason = str(error).strip().splitlines()[-1]
            raise RequestError(f"{constraint.kind} cannot be compiled: {reason}") from None
