"""How an answer can be broken whatever was asked: empty, going round in a loop, no text, or without an end. Pure.

Rules of thumb for people who look for broken exports, not a measure of style: an answer of the trained model that shows
the same sign is compared with, and excuses it.
"""

import unicodedata
from typing import Literal

Kind = Literal["empty", "repetition", "garbage", "never_ending"]
KINDS: tuple[Kind, ...] = ("empty", "repetition", "garbage", "never_ending")
LOOP_TIMES = 4
"""So often a unit comes again at the end of an answer that goes round in a loop ..."""
LOOP_CHARACTERS = 32
"""... and over so many characters: `no, no, no, no` is an answer."""
BAD_SHARE = 0.1
"""Of the characters: replacement characters, controls and code points without a meaning."""
WORD_SHARE = 0.2
"""Of the visible characters: letters and digits of any script. Less of them is no text ..."""
WORD_CHARACTERS = 16
"""... in an answer of at least so many."""
_MEANINGLESS = ("Cc", "Cn", "Co", "Cs")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def kinds(text: str, *, ended: bool, should_end: bool) -> list[Kind]:
    """What is broken about an answer; `should_end` where the trained model's answer to the same prompt ended."""
    visible = text.strip() if ended else text.strip().rstrip(_REPLACEMENT)  # it may be cut in the middle of a character
    found: dict[Kind, bool] = {
        "empty": not visible,
        "repetition": in_a_loop(visible),
        "garbage": bool(visible) and is_garbage(visible),
        "never_ending": should_end and not ended,
    }
    return [kind for kind, shown in found.items() if shown]


def in_a_loop(text: str) -> bool:
    """Whether the text ends with the same unit LOOP_TIMES or more, over at least LOOP_CHARACTERS."""
    return any(_again(text, unit) for unit in range(1, len(text) // LOOP_TIMES + 1))


def is_garbage(text: str) -> bool:
    """Whether much of it is no character at all, or little of it is a letter or digit of any script."""
    bad = sum(character == _REPLACEMENT or _meaningless(character) for character in text)
    visible = [character for character in text if not character.isspace()]
    words = sum(unicodedata.category(character)[0] in "LMN" for character in visible)
    return bad > BAD_SHARE * len(text) or (len(visible) >= WORD_CHARACTERS and words < WORD_SHARE * len(visible))


def _again(text: str, unit: int) -> bool:
    """Whether the end of the text repeats its last `unit` characters often and long enough."""
    needed = max(LOOP_TIMES * unit, LOOP_CHARACTERS)
    tail = text[-needed:]
    return len(tail) == needed and tail[unit:] == tail[:-unit]


def _meaningless(character: str) -> bool:
    return character not in "\n\r\t" and unicodedata.category(character) in _MEANINGLESS
