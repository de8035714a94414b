"""From a document to a typed value; every problem at once: file, line, what was found, what is allowed."""

import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.documents import Document, Key, Origin, Problem
from orchestrator.errors import RecipeError
from orchestrator.plugins import nearest

M = TypeVar("M", bound=BaseModel)
Check = Callable[[M], Iterable[tuple[Key, str]]]
"""Finds problems that one field alone does not show: (where, what) of each."""


def validate(model: type[M], document: Document, *, name: str, check: Check[M] | None = None) -> M:
    """The document as a `model`. Raises RecipeError with all problems of text, types and `check`."""
    problems = list(document.problems)
    try:
        value = model.model_validate(document.data)
        problems += [Problem(origin(document, key), f"{dotted(key)}: {text}") for key, text in (check or _none)(value)]
    except ValidationError as error:
        value = None
        problems += [_problem(model, document, detail) for detail in error.errors(include_url=False)]
    if problems or value is None:
        raise _error(name, problems)
    return value


def refused(document: Document, name: str, found: Iterable[tuple[Key, str]]) -> RecipeError:
    """The error for problems, (where, what) of each, that only the world around the document shows."""
    return _error(name, [Problem(origin(document, key), f"{dotted(key)}: {text}") for key, text in found])


def origin(document: Document, key: Key) -> Origin:
    """Where the value was written, or the nearest thing around it that was."""
    for length in range(len(key), -1, -1):
        if key[:length] in document.origins:
            return document.origins[key[:length]]
    return Origin("built-in")


def dotted(key: Key) -> str:
    """`export.0.engine`."""
    return ".".join(str(part) for part in key)


def _none(_: Any) -> list[tuple[Key, str]]:
    return []


def _error(name: str, problems: list[Problem]) -> RecipeError:
    return RecipeError(_listing(name, problems), next_step="mend them and run the same command; nothing was started")


def _listing(name: str, problems: list[Problem]) -> str:
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: (problem.origin.file, problem.origin.line))
    count = f"{len(ordered)} problem{'s' if len(ordered) > 1 else ''}"
    return f"{count} in {name}\n" + "\n".join(f"  {problem}" for problem in ordered)


def _problem(model: type[BaseModel], document: Document, detail: ErrorDetails) -> Problem:
    key: Key = tuple(detail["loc"])
    where = origin(document, key)
    if detail["type"] == "extra_forbidden":
        return Problem(where, f"unknown key {dotted(key)!r}; {nearest(str(key[-1]), _known(model, key[:-1]))}")
    if detail["type"] == "missing":
        return Problem(where, f"missing key {dotted(key)!r}")
    text = detail["msg"].removeprefix("Value error, ")
    found = "" if detail["type"] == "value_error" else f"; found {detail['input']!r}"
    return Problem(where, f"{dotted(key)}: {text[0].lower()}{text[1:]}{found}")


def _known(model: type[BaseModel], key: Key) -> list[str]:
    """The fields allowed at a key."""
    here: Any = model
    of_mapping = False
    for part in key:
        if of_mapping or isinstance(part, int) or here is None:  # a key of the user's own, or an index
            of_mapping = False
            continue
        field = here.model_fields.get(part)
        here, of_mapping = (_first_model(field.annotation), _is_mapping(field.annotation)) if field else (None, False)
    return sorted(here.model_fields) if here else []


def _is_mapping(annotation: Any) -> bool:
    return typing.get_origin(annotation) is dict or any(map(_is_mapping, typing.get_args(annotation)))


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (_first_model(argument) for argument in typing.get_args(annotation))
    return next((model for model in found if model), None)
