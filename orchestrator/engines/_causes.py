"""Why an engine cannot go on, by what its log says: each engine has a table of patterns and words, the first counts."""

import re
from collections.abc import Sequence

Causes = Sequence[tuple[str, str]]
"""(regular expression, words with what would do): {0} is all that was found, {1}, {2} ... and {name} are its groups."""


def cause(log: str, causes: Causes) -> str | None:
    """The cause in one line; None: nothing known."""
    for pattern, words in causes:
        if found := re.search(pattern, log):
            return " ".join(words.format(found[0], *found.groups(), **found.groupdict()).split())
    return None
