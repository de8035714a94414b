"""`--explain` with or without a word after it: neither click nor typer reads `--explain` beside other arguments."""

from typing import Any

from typer.core import TyperCommand

ORIGINS = "origins"
TOPICS = (ORIGINS, "memory", "time", "cost")


class WithTopic(TyperCommand):
    """A command whose `--explain` takes one of TOPICS, and means the first where none follows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, after `--explain memory` has become `--explain=memory`."""
        return super().parse_args(ctx, joined(args))


def joined(args: list[str]) -> list[str]:
    """`--explain memory` as one argument; `--explain` alone as `--explain=origins`."""
    found: list[str] = []
    rest = iter(range(len(args)))
    for index in rest:
        if args[index] != "--explain":
            found.append(args[index])
            continue
        topic = args[index + 1] if index + 1 < len(args) and args[index + 1] in TOPICS else None
        found.append(f"--explain={topic or ORIGINS}")
        if topic:
            next(rest)
    return found
