"""Groundedness: does an answer assert something that its source text does not contain? Pure text, no model.

An answer's claims are its lines, cut further at the ends of sentences and at semicolons; list markers are dropped. A
claim is ungrounded when one of its content words (a run of letters or digits, inner apostrophes and hyphens split it,
case ignored, English stop words left out) occurs nowhere in the source. An answer is ungrounded when at least one of
its claims is. This finds invented names, numbers and terms; it does not find known words that are put together wrongly,
and it takes a paraphrase for an invention: use it where answers quote their source.
"""

import re

_STOP_WORDS = """
a an and any are as at be been but by can could did do does for from had has have he her his how i if in into is it its
may might must no nor not of on or our shall she should so such than that the their them then there these they this
those to under unless until upon was we were what when where which who will with within without would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_WORD = re.compile(r"[^\W_]+")
_CLAIM_END = re.compile(r";|(?<=[.!?])\s+")
_LIST_MARKER = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


def claims(answer: str) -> list[str]:
    """The answer's claims, in order; parts without a content word are none."""
    lines = (_LIST_MARKER.sub("", line) for line in answer.splitlines())
    parts = (part.strip() for line in lines for part in _CLAIM_END.split(line))
    return [part for part in parts if content_words(part)]


def content_words(text: str) -> set[str]:
    """Lower-case words that carry meaning."""
    return {word for word in _WORD.findall(text.casefold()) if word not in STOP_WORDS}


def ungrounded_claims(answer: str, source: str) -> list[str]:
    """The claims with a content word that the source does not contain."""
    known = content_words(source)
    return [claim for claim in claims(answer) if not content_words(claim) <= known]
