"""Plug-ins by folder: one file of a package is one plug-in, found by listing it, loaded only when it is used."""

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import Any

from orchestrator.errors import InputError

_SHARED = {"base", "client", "running", "watch"}


def names(package: ModuleType) -> list[str]:
    """Names of the plug-ins of a package: its modules, less the shared ones (`base`, and those that begin with `_`)."""
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if name not in _SHARED and not name.startswith("_"))


def load(package: ModuleType, name: str) -> Any:
    """The plug-in module of that name. Raises InputError with the nearest name when there is none."""
    known = names(package)
    if name not in known:
        kind = package.__name__.rsplit(".", 1)[-1].rstrip("s")
        raise InputError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return importlib.import_module(f"{package.__name__}.{name}")


def nearest(name: str, known: list[str]) -> str:
    """`did you mean 'x'? (known: x, y)`, for the end of an error."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}(known: {', '.join(known) or 'none'})"
