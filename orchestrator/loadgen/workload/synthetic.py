"""Made-up prompts whose lengths in tokens are drawn; what they say does not matter, only that no two are alike."""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from orchestrator.errors import InputError
from orchestrator.loadgen.tokens import OPENER, Passages, Vocabulary
from orchestrator.loadgen.workload.distributions import Draw
from orchestrator.loadgen.workload.prefix import Prefixes, opened
from orchestrator.loadgen.workload.talk import Messages, Talk, Turn

Length = Callable[[], int]


@dataclass(frozen=True)
class SyntheticTalks:
    """Talks of drawn lengths, without end."""

    passages: Passages
    vocabulary: Vocabulary
    input: Length
    output: Length
    nonce: bool
    turns: Length | None = None
    think: Draw | None = None
    prefixes: Prefixes | None = None

    def talks(self) -> Iterator[Talk]:
        """Each prompt has its number's text: the same for a seed, however many are taken."""
        numbers = itertools.count()
        while True:
            count = self.turns() if self.turns else 1
            turns = tuple(self._turn(next(numbers), first=turn == 0) for turn in range(count))
            prefix = self.prefixes.draw() if self.prefixes else -1
            opening = functools.partial(self._opening, turns[0], prefix)
            later = functools.partial(self._later, turns) if count > 1 else str
            yield Talk(turns, opening, later, prefix=prefix)

    def _turn(self, number: int, *, first: bool) -> Turn:
        think = 0.0 if first or self.think is None else self.think()
        return Turn(number, self.input(), self.output(), think)

    def _opening(self, turn: Turn, prefix: int) -> Messages:
        common = self.prefixes.text(prefix) if self.prefixes and prefix >= 0 else "" if self.nonce else OPENER
        text = self.passages.text(turn.prompt, (turn.input_tokens or 0) - self.vocabulary.overhead)
        return [{"role": "user", "content": opened(common, text[1:], nonce=self.nonce)}]

    def _later(self, turns: tuple[Turn, ...], turn: int) -> str:
        """New text of the wanted length; the template's tokens around it come on top."""
        return self.passages.text(turns[turn].prompt, turns[turn].input_tokens or 0)[1:]


def fitted(talk: Talk, *, prefix_tokens: int, longest: int) -> Talk:
    """The talk with as many turns as the server's context holds. Raises InputError when not even the first one fits."""
    used = prefix_tokens if talk.prefix >= 0 else 0
    for position, turn in enumerate(talk.turns):
        used += (turn.input_tokens or 0) + (turn.output_tokens or 0)
        if used <= longest:
            continue
        if position == 0:
            raise InputError(
                f"a synthetic request has {used} tokens, answer included, but the server takes {longest}",
                next_step="make input_tokens, output_tokens or shared_prefix shorter; `max` cuts a log-normal tail",
            )
        return replace(talk, turns=talk.turns[:position])
    return talk
