"""Constraints on the output: compiled once, off the engine thread, and followed token by token by a matcher.

Regular expressions go to llguidance (github.com/guidance-ai/llguidance), whose lazy automata need no compile time and make
masks of bounded repetitions cheap, and so do JSON schemas that say what a string matches or how long it is. For these xgrammar
(github.com/mlc-ai/xgrammar) takes seconds to compile or 50 ms a mask, and allows what is no JSON; it gets other schemas, whose
masks it makes fastest, EBNF and structural tags. A constraint that cannot be compiled is a `RequestError` with the compiler's
sentence; both outcomes are cached.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tokenizers import Tokenizer

from .automaton import Automaton, UnknownSyntax
from .errors import RequestError
from .json_schema import bounds_strings, close_objects
from .matchers import KeptMasks, LLGuidanceMatcher, Matcher, Place, XGrammarMatcher, make_ahead
from .sampling_params import Constraint

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from transformers import PreTrainedTokenizerFast
    from xgrammar import GrammarCompiler as XGrammarCompiler

COMPILE_THREADS = 2
COMPILE_SECONDS = 30.0
LENGTHS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 12), (13, 16))
SLICES = [rf"[\w\s]{{{shortest},{longest}}}" for shortest, longest in LENGTHS]
"""Parts of the vocabulary whose masks llguidance keeps, and takes whole where a regex allows all of their tokens instead of
walking these: words by their length, which a repetition such as `\\w{1,16}` allows up to what is left of it."""
MAX_JSON_SPACES = 32
"""White space in a row between parts of JSON. Small models, once they indent, may write nothing else without a limit."""
JSON_SPACE = rf"[ \n\r\t]{{1,{MAX_JSON_SPACES}}}"
LARGE_VOCABULARY, AHEAD_AT_ONCE = 1 << 15, 8
"""Words from which on the masks of a regular expression are made ahead, since below one takes less than 0.1 ms; and how many
expressions may wait for that: the masks of more are made when a text gets there."""
CONSTRAINTS_KEPT = 256
"""Compiled constraints that are kept, those that were used last."""
SHOWN = 200
"""Of a constraint, in messages, so many characters."""
LOG_PREFIX = re.compile(r"^\[[\d:]+\] \S+:\d+: ")
"""What xgrammar puts before its messages: time, source file and line."""


T = TypeVar("T")


class GrammarCompiler:
    """Compiles constraints for one vocabulary. `compile` is called on one thread only; the work is done on others.

    `backend` compiles EBNF and those JSON schemas that both can: xgrammar or llguidance. `json_whitespace` is a regular
    expression for what may stand between the parts of JSON, which only llguidance can be told.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        vocab_size: int,
        stop_tokens: list[int],
        backend: str = "xgrammar",
        json_whitespace: str | None = None,
    ):
        self._tokenizer, self._vocab_size, self._stop_tokens = tokenizer, vocab_size, stop_tokens
        self._guides_all, self._json_whitespace = backend == "llguidance", json_whitespace or JSON_SPACE
        self._threads = ThreadPoolExecutor(COMPILE_THREADS, thread_name_prefix="grammar")
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="masks")
        self._made_ahead: list[Future[None]] = []
        self._llguidance = self._threads.submit(self._load_llguidance)
        self._xgrammar = self._threads.submit(self._load_xgrammar)
        self._cache: dict[Constraint, Future[Callable[[], Matcher]]] = {}
        self._masks = KeptMasks()

    def compile(self, constraint: Constraint) -> Future[Callable[[], Matcher]]:
        """A maker of matchers for the constraint, perhaps later; its error, if any, is a `RequestError`."""
        compiled = self._cache.pop(constraint, None)
        if compiled is None:
            compiled = _within(COMPILE_SECONDS, self._threads.submit(self._compile, constraint), constraint.kind)
        self._cache[constraint] = compiled
        if len(self._cache) > CONSTRAINTS_KEPT:
            del self._cache[next(iter(self._cache))]
        return compiled

    def wait_until_made(self) -> None:
        """Wait for the masks that are being made ahead."""
        wait(self._made_ahead)

    def wait_until_loaded(self) -> None:
        """Wait for what is made of the vocabulary once: seconds for a large one, in which Python runs nothing else."""
        loading: list[Future[Any]] = [self._llguidance, self._xgrammar]
        wait(loading)

    def clear(self) -> None:
        self._cache.clear()

    def close(self) -> None:
        for threads in (self._threads, self._ahead):
            threads.shutdown(wait=False, cancel_futures=True)

    def _load_llguidance(self) -> LLTokenizer:
        import llguidance.hf

        return llguidance.hf.from_tokenizer(
            self._tokenizer, n_vocab=self._vocab_size, eos_token=self._stop_tokens, slices=SLICES
        )

    def _load_xgrammar(self) -> XGrammarCompiler:
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(
            self._tokenizer, vocab_size=self._vocab_size, stop_token_ids=self._stop_tokens
        )
        return xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def _compile(self, constraint: Constraint) -> Callable[[], Matcher]:
        guided = {"regex", "ebnf", "json_schema"} if self._guides_all else {"regex"}
        try:
            if constraint.kind in guided or (constraint.kind == "json_schema" and bounds_strings(_read(constraint))):
                return self._compile_llguidance(constraint)
            return self._compile_xgrammar(constraint)
        except RecursionError:
            raise RequestError(f"{constraint.kind} cannot be used: it is nested too deeply.") from None

    def _compile_llguidance(self, constraint: Constraint) -> Callable[[], Matcher]:
        from llguidance import LLMatcher, grammar_from

        kind, text = constraint.kind, constraint.text
        if kind == "json_schema":
            schema = _read(constraint)
            close_objects(schema)
            grammar = LLMatcher.grammar_from_json_schema(
                schema, overrides={"whitespace_pattern": self._json_whitespace, "lenient": True}
            )
        else:
            try:
                grammar = grammar_from(kind, text)  # pyright: ignore[reportArgumentType]
            except ValueError as error:  # what it finds before it compiles
                raise RequestError(f"{_shown(constraint)} cannot be used: {error}") from None
        matcher = LLMatcher(self._llguidance.result(), grammar, log_level=0)
        if error := matcher.get_error():
            reason = error.split("error: ")[-1].splitlines()[0]
            raise RequestError(f"{_shown(constraint)} cannot be used: {reason}")
        automaton = _automaton(text) if kind == "regex" else None
        if automaton and self._vocab_size >= LARGE_VOCABULARY:
            self._make_ahead(matcher, automaton)
        return lambda: LLGuidanceMatcher(matcher.deep_copy(), self._place(automaton))

    def _make_ahead(self, matcher: LLMatcher, automaton: Automaton) -> None:
        self._made_ahead = [made for made in self._made_ahead if not made.done()]
        if len(self._made_ahead) < AHEAD_AT_ONCE:
            tokenizer, words = self._llguidance.result(), -(-self._vocab_size // 32)
            self._made_ahead.append(
                self._ahead.submit(make_ahead, matcher.deep_copy(), tokenizer, automaton, self._masks, words)
            )

    def _place(self, automaton: Automaton | None) -> Place | None:
        tokenizer = self._llguidance.result()
        return Place(automaton, self._masks, lambda token: tokenizer.decode_bytes([token])) if automaton else None

    def _compile_xgrammar(self, constraint: Constraint) -> Callable[[], Matcher]:
        compiler = self._xgrammar.result()
        compilers = {
            "json_schema": partial(compiler.compile_json_schema, max_whitespace_cnt=MAX_JSON_SPACES),
            "ebnf": compiler.compile_grammar,
            "structural_tag": compiler.compile_structural_tag,
        }
        try:
            compiled = compilers[constraint.kind](constraint.text)
        except Exception as error:  # xgrammar raises RuntimeError, TypeError and ValueError for bad constraints
            reason = LOG_PREFIX.sub("", str(error).strip().splitlines()[-1])
            raise RequestError(f"{constraint.kind} cannot be used: {reason}") from None
        return lambda: XGrammarMatcher(compiled)


def _automaton(expression: str) -> Automaton | None:
    try:
        return Automaton(expression)
    except UnknownSyntax:
        return None


def _read(constraint: Constraint) -> Any:
    """A constraint's text as JSON."""
    try:
        return json.loads(constraint.text)
    except ValueError as error:
        raise RequestError(f"{_shown(constraint)} cannot be used: it is not JSON: {error}.") from None


def _shown(constraint: Constraint) -> str:
    """A constraint as messages name it."""
    text = constraint.text
    return f"{constraint.kind} {text if len(text) <= SHOWN else text[:SHOWN] + '...'!r}"


def _within(seconds: float, work: Future[T], name: str) -> Future[T]:
    """The result of `work`, or a `RequestError` if it takes too long; the thread that does the work is busy until it ends."""
    result: Future[T] = Future()

    def finish(error: BaseException | None) -> None:
        with contextlib.suppress(InvalidStateError):  # the other one came first
            result.set_exception(error) if error else result.set_result(work.result())

    timer = threading.Timer(
        seconds, finish, [RequestError(f"{name} cannot be used: it takes more than {seconds:.0f} s to compile.")]
    )
    timer.daemon = True
    timer.start()
    work.add_done_callback(lambda _: timer.cancel())
    work.add_done_callback(lambda _: finish(CancelledError() if work.cancelled() else work.exception()))
    return result


def jump_forward(matcher: Matcher, tokenizer: Tokenizer, last: int | None) -> list[int]:
    """Replace the token `last`, the latest one accepted (None before the first), by tokens that also spell what is forced.

    Returns the new tokens, accepted by the matcher, or [] if there is nothing to gain. The forced text is encoded together
    with the text of `last`, since the two may merge; the final token of that encoding is left out, since it may merge with
    what the model writes next. (After MLC-LLM's and SGLang's jump-forward decoding, arXiv 2312.07104.)
    """
    forced = matcher.forced()
    spelled = "" if last is None else tokenizer.decode([last], skip_special_tokens=False)
    if len(forced) < 2 or "\ufffd" in spelled:
        return []
    tokens = tokenizer.encode(spelled + forced, add_special_tokens=False).ids[:-1]
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    plain = text == tokenizer.decode(tokens, skip_special_tokens=True) and (spelled + forced).startswith(text)
    if len(text) <= len(spelled) or not plain:
        return []
    if last is not None:
        matcher.rollback(1)
    if not all(matcher.accept(token) for token in tokens):
        raise RequestError(f"the constraint refused the text that it forced: {forced!r}", 500)
    return tokens
