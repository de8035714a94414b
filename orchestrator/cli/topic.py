"""Two shapes of a command line that typer does not read: `--explain` with or without a word after it, and a group of
commands that takes a recipe in a command's place.
"""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from orchestrator.errors import InputError
from orchestrator.plugins import nearest

ORIGINS = "origins"
SERVE = "serve"
TOPICS = (ORIGINS, "memory", "time", "cost", SERVE)


def check(topic: str) -> None:
    """Raises InputError for a word that is no topic."""
    if topic not in TOPICS:
        raise InputError(f"--explain: no topic {topic!r}; {nearest(topic, list(TOPICS))}")


class WithTopic(TyperCommand):
    """A command whose `--explain` takes one of TOPICS, and means the first where none follows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, after `--explain memory` has become `--explain=memory`."""
        return super().parse_args(ctx, joined(args))


class OrRecipe(TyperGroup):
    """A group for which `cost recipe.yaml` means `cost run recipe.yaml`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As usual, for the command `run` where a file is named first."""
        return super().resolve_command(ctx, ["run", *args] if args[0].endswith((".yaml", ".yml")) else args)


def joined(args: list[str]) -> list[str]:
    """`--explain memory` as one argument; `--explain` alone as `--explain=origins`."""
    found: list[str] = []
    rest = iter(range(len(args)))
    for index in rest:
        if args[index] != "--explain":
            found.append(args[index])
            continue
        following = args[index + 1] if index + 1 < len(args) else ""
        topic = following if following.isalpha() else None  # a misspelt one too; a recipe has a dot, an override a sign
        found.append(f"--explain={topic or ORIGINS}")
        if topic:
            next(rest)
    return found
