"""From a YAML file to a Recipe, with the origin of every value."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.documents import Document
from orchestrator.recipe.checks import problems
from orchestrator.recipe.layers import layered
from orchestrator.recipe.recipe import Recipe
from orchestrator.validation import validate


@dataclass(frozen=True)
class Loaded:
    """A recipe and the document that it was read from."""

    recipe: Recipe
    document: Document
    path: Path


def load_recipe(path: Path, overrides: list[str], home: Path) -> Loaded:
    """Read a recipe with its layers and `key=value` overrides; `home` may hold the user's defaults.

    Raises RecipeError that lists every problem, InputError for a file that cannot be read.
    """
    document = layered(path, overrides, home)
    return Loaded(validate(Recipe, document, name=str(path), check=problems), document, path)
