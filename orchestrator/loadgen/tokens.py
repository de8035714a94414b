"""Texts of a wanted number of tokens, by the target's own tokenizer.

    vocabulary = vocabulary_of(server, "chat", tokenizer=None, nonce=True)
    passages = Passages(vocabulary, seed=17)
    passages.text(key=3, tokens=512 - vocabulary.overhead)

Words that cost one token each, wherever they stand, are found by counting a list of them at once and halving it where
the count is off. A text of n such words then has n tokens, without the tokenizer being asked again. What stands around
it (chat template, nonce) is learned from the usage of one real request. Tokens are counted by a local tokenizer, else
by the server's /tokenize, else by the usage of one-token requests.
"""

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.loadgen.probe import Endpoint, Server
from orchestrator.loadgen.requests import NONCE

Count = Callable[[str], int]

OPENER = "Text:"
"""Stands before the words of a prompt without a nonce, since chat templates may cut leading spaces away."""

# common words: one token each in most vocabularies, the commonest first
_COMMON = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you
were all her she there would their we him been has when who will no more if out so up said what its about than into
them can only other time new some could these two may first then do any like my now over such our man me even most
made after also did many must before back see through way where get much go well your should down work year because
come people just own take good each those feel seem high last long great small large place hand old life tell write
day right again world still house think point water under night left while part state never found home end both number
another same school hard young show keep eye fact give during without war set against face line group problem every
city start public local power money name story week case study lot word business issue side kind head service friend
father hour game member law car community president team minute idea body information parent level office door health
person art history party result change morning reason research girl guy moment air teacher force education
"""
_WORDS = tuple(_COMMON.split())
_PASSAGE_TOKENS = 128
"""Length of the text that proves that the words add up."""
_SAMPLES = 8
_LONGEST = 4096
"""Words in one question at most."""
_POOL = 1 << 14
_FEWEST_WORDS = 4
_BUDGETS = {"file": 2000, "server": 64, "usage": 12}
"""Questions that finding the words may take: a file answers in 20 µs, a usage costs a request."""


@dataclass(frozen=True)
class Vocabulary:
    """Words to make texts of, and what a prompt has beside them."""

    words: tuple[str, ...]
    tokens_per_word: float
    """1 when `exact`."""
    exact: bool
    """A text of n words has n tokens."""
    counted_by: str
    """What counted the tokens; for people."""
    marker_tokens: int
    """Of ` [NONCE]` in front of words, rounded where it varies."""
    marker_spread: tuple[int, int]
    """The fewest and the most tokens that it had in some samples."""
    overhead: int
    """Prompt tokens of an empty text: chat template, and either the nonce or `OPENER`."""
    overhead_known: bool
    """Learned from a usage, or from the server's template."""

    @property
    def residual(self) -> str:
        """How far the usage can be from the wanted length, in words."""
        if not self.exact:
            return f"about {self.tokens_per_word:.2f} tokens a word; lengths are approximate"
        low, high = self.marker_spread
        parts = []
        if high > low:
            parts.append(f"the nonce has {low} to {high} tokens, counted as {self.marker_tokens}")
        if not self.overhead_known:
            parts.append("the chat template's tokens are not known and come on top")
        return "; ".join(parts) or "none"


class Passages:
    """Texts by number: the same seed, vocabulary and number give the same text, and other numbers other texts."""

    def __init__(self, vocabulary: Vocabulary, seed: int) -> None:
        rng = random.Random(f"{seed}:words")
        self._words, self._per_word = vocabulary.words, vocabulary.tokens_per_word
        pool = [f" {word}" for word in rng.choices(self._words, k=_POOL)]
        self._pool = "".join(pool)
        self._starts = [0, *itertools.accumulate(map(len, pool))]

    def text(self, key: int, tokens: int) -> str:
        """Words with a space before each, `tokens` tokens together; its first words spell the key."""
        count = max(0, round(tokens / self._per_word))
        first = self._spelled(key)[:count]
        return "".join(first) + self._cut(key * 7919 % _POOL, count - len(first))

    def _spelled(self, key: int) -> list[str]:
        """The key in base len(words), the lowest digit first."""
        found, size = [], len(self._words)
        while key:
            key, digit = divmod(key, size)
            found.append(f" {self._words[digit]}")
        return found

    def _cut(self, start: int, count: int) -> str:
        """`count` words of the pool, going round."""
        whole, rest = divmod(count, _POOL)
        text = self._pool[self._starts[start] :] + self._pool[: self._starts[start]] if whole else ""
        end = start + rest
        last = self._pool[self._starts[start] : self._starts[min(end, _POOL)]]
        return text * whole + last + self._pool[: self._starts[max(0, end - _POOL)]]


def additive(words: Sequence[str], count: Count, *, budget: int) -> list[str]:
    """Those of the words that cost one token each behind any other, with at most `budget` counts; the first ones first.

    `count` need only be right in its differences: template tokens in every count do no harm.
    """
    if budget < 2:
        return []
    base, left = count("x"), budget - 1
    good: list[str] = []
    # (words, excess of their tokens over one each; None: not counted yet)
    groups: list[tuple[Sequence[str], int | None]] = [(words, None)]
    while groups and left > 0:
        group, excess = groups.pop()
        if excess is None:
            excess, left = count("x" + _joined(group)) - base - len(group), left - 1
        if excess == 0:
            good += group
        elif len(group) > 1 and left > 0:
            first, second = group[: len(group) // 2], group[len(group) // 2 :]
            off, left = count("x" + _joined(first)) - base - len(first), left - 1
            groups += [(second, excess - off), (first, off)]
    return good


def vocabulary_of(server: Server, endpoint: Endpoint, *, tokenizer: Path | None, nonce: bool) -> Vocabulary:
    """The vocabulary for a server; asked for again with the same arguments, it costs nothing.

    `tokenizer` is a tokenizer.json of Hugging Face's, or the folder that holds one.
    """
    return _vocabulary(server, endpoint, tokenizer, nonce)


@functools.lru_cache(maxsize=32)
def _vocabulary(server: Server, endpoint: Endpoint, tokenizer: Path | None, nonce: bool) -> Vocabulary:
    kind, name, count = _counter(server, endpoint, tokenizer)
    if count is None:
        return Vocabulary(
            words=_WORDS, tokens_per_word=1.0, exact=False, counted_by=name, marker_tokens=len(NONCE) // 2,
            marker_spread=(len(NONCE) // 2, len(NONCE) // 2), overhead=len(NONCE) // 2, overhead_known=False,
        )  # fmt: skip
    longest = (server.max_model_len or _LONGEST) // 4 if kind == "usage" else _LONGEST
    words, per_word = _words(_WORDS[:longest], count, _BUDGETS[kind])
    costs = _marker_costs(count, words[0], few=kind == "usage")
    marker = round(sum(costs) / len(costs))
    overhead, known = _overhead(server, endpoint, count, words, per_word, nonce=nonce)
    return Vocabulary(
        words=tuple(words),
        tokens_per_word=per_word,
        exact=per_word == 1,
        counted_by=name,
        marker_tokens=marker,
        marker_spread=(min(costs), max(costs)),
        overhead=overhead + (marker - costs[0] if nonce else 0),
        overhead_known=known,
    )


def cheap_counter(server: Server, tokenizer: Path | None) -> tuple[Count | None, str | None]:
    """What counts a text without a request to the model, and its name; None where there is no such thing."""
    if tokenizer is None and server.tokenize is None:
        return None, None
    _, name, count = _counter(server, server.endpoint, tokenizer)
    return count, name


def sample_nonces(number: int) -> list[str]:
    """Such as the load generator puts in the place of NONCE, always the same ones."""
    rng = random.Random(0)
    return ["".join(rng.choices("0123456789", k=len(NONCE))) for _ in range(number)]


def _counter(server: Server, endpoint: Endpoint, tokenizer: Path | None) -> tuple[str, str, Count | None]:
    if tokenizer is not None:
        return "file", f"tokenizer {tokenizer.name}", _cached(_file_counter(tokenizer))
    if server.tokenize is not None:
        return "server", "the server's /tokenize", _cached(server.tokenize)
    ask = server.prompt_tokens
    if ask is None or ask(endpoint, "x") is None:
        return "none", "nothing: the server has no /tokenize and refused a one-token request", None
    return "usage", "the usage of one-token requests", _cached(functools.partial(_by_usage, ask, endpoint))


def _cached(count: Count) -> Count:
    return functools.cache(count)


def _by_usage(ask: Callable[[Endpoint, str], int | None], endpoint: Endpoint, text: str) -> int:
    found = ask(endpoint, text)
    if found is None:
        raise InputError(
            "the server refused a one-token request with which the tokens of a text were to be counted",
            next_step="name a `tokenizer` in the workload, or use a dataset",
        )
    return found


def _file_counter(path: Path) -> Count:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"no tokenizer at {path}", next_step="name a tokenizer.json, or a model's folder that has one")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        missing = InputError(f"reading {file} needs the `tokenizers` library", next_step="pip install tokenizers")
        raise missing from error
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} is not a tokenizer: {error}") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _words(common: Sequence[str], count: Count, budget: int) -> tuple[Sequence[str], float]:
    """Words to use, and their tokens: 1 each, proven on a passage, or their mean."""
    found = additive(common, count, budget=budget)
    words = found if len(found) >= _FEWEST_WORDS else common
    sample = random.Random(0).choices(words, k=min(_PASSAGE_TOKENS, len(common)))
    cost = (count("x" + _joined(sample)) - count("x")) / len(sample)
    return words, cost if cost > 0 else 1.0


def _marker_costs(count: Count, word: str, *, few: bool) -> list[int]:
    """Tokens of ` [nonce]` before a word for some nonces; for one alone, where all together cost as much."""
    plain, nonces = count("x") + 1, sample_nonces(_SAMPLES)
    first = count(f"x [{nonces[0]}] {word}") - plain
    together = count("x" + "".join(f" [{nonce}] {word}" for nonce in nonces)) - plain + 1
    if together == _SAMPLES * (first + 1):
        return [first]
    if few:
        mean = together / _SAMPLES - 1
        return [first, max(1, round(2 * mean - first))]
    return [first, *(count(f"x [{nonce}] {word}") - plain for nonce in nonces[1:])]


def _overhead(
    server: Server, endpoint: Endpoint, count: Count, words: Sequence[str], per_word: float, *, nonce: bool
) -> tuple[int, bool]:
    """What a real request counts beyond its words; without one, what the probe learned. And whether that is known."""
    sample = words[: _PASSAGE_TOKENS // 4]
    text = (f"[{sample_nonces(1)[0]}]" if nonce else OPENER) + _joined(sample)
    of_words = len(sample) if per_word == 1 else count("x" + _joined(sample)) - count("x")
    used = server.prompt_tokens(endpoint, text) if server.prompt_tokens else None
    if used is not None:
        return used - of_words, True
    template = server.template_tokens
    return count(text) + (template or 0) - of_words, template is not None


def _joined(words: Sequence[str]) -> str:
    return "".join(f" {word}" for word in words)
