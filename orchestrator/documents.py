"""Reads one YAML file into plain data and remembers the file and line of every value.

PyYAML's own loader keeps the last of two equal keys, reads `1e-4` as text and `2024-05-01` as a date; all mended here.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import InputError

Key = tuple[str | int, ...]
"""Where a value sits: ("export", 0, "engine")."""


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file and its line, or `line` 0 for the command line and built-in values."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    origin: Origin
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


@dataclass
class Document:
    """Nested dicts and lists, the origin of each value, and what was wrong with the text."""

    data: dict[str, Any]
    origins: dict[Key, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 booleans and floats and without dates: `on:` is a key of gates, not True."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith((":bool", ":float", ":timestamp"))]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_FLOAT = re.compile(
    r"^[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"
)
_MERGE = "tag:yaml.org,2002:merge"
_BOOL = re.compile(r"^(true|True|TRUE|false|False|FALSE)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read(path: Path) -> Document:
    """Raises InputError when the file is missing, unreadable or not YAML; all else becomes a problem of it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"no file {path}", next_step=_neighbours(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return parse(text, str(path))


def parse(text: str, file: str) -> Document:
    """The document of a text; `file` is its name in messages. Raises InputError when it is not a YAML mapping."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is not None and not isinstance(root, yaml.MappingNode):
            kind = str(root.tag).rsplit(":", 1)[-1]
            raise InputError(f"{file}:1: a mapping of keys is needed, found a {kind}")
        document = Document({})
        if root is not None:
            document.data = _value(loader, root, (), file, document)
        return document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{file}:{line}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: `!!int many`
        raise InputError(f"{file}: not YAML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{file}: not YAML: something contains itself, or is nested too deeply") from error
    finally:
        loader.dispose()


def scalar(text: str) -> Any:
    """A command-line value, read as YAML would read it: numbers, true, null, [a, b]."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError):
        return text


def _value(loader: _Loader, node: yaml.Node, key: Key, file: str, document: Document) -> Any:
    document.origins.setdefault(key, Origin(file, node.start_mark.line + 1))
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, key, file, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, child, (*key, index), file, document) for index, child in enumerate(node.value)]
    return loader.construct_object(node)


def _mapping(loader: _Loader, node: yaml.MappingNode, key: Key, file: str, document: Document) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name_node, value_node in node.value:
        if name_node.tag == _MERGE:
            continue
        name, line = str(loader.construct_object(name_node)), name_node.start_mark.line + 1
        if name in found:
            first = document.origins[(*key, name)].line
            document.problems.append(Problem(Origin(file, line), f"duplicate key {name!r}, first on line {first}"))
            continue
        document.origins[(*key, name)] = Origin(file, line)
        found[name] = _value(loader, value_node, (*key, name), file, document)
    for parent in _merged(node):
        inside = Document({})
        for name, value in _mapping(loader, parent, key, file, inside).items():
            if name not in found:
                found[name] = value
                size = len(key) + 1
                document.origins |= {at: o for at, o in inside.origins.items() if at[:size] == (*key, name)}
    return found


def _merged(node: yaml.MappingNode) -> list[yaml.MappingNode]:
    """The mappings of YAML merge keys, `<<: *anchor` or `<<: [*one, *two]`; the first that has a key wins."""
    values = [value for name, value in node.value if name.tag == _MERGE]
    parents = [parent for v in values for parent in (v.value if isinstance(v, yaml.SequenceNode) else [v])]
    for parent in parents:
        if not isinstance(parent, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="<< needs a mapping", problem_mark=parent.start_mark)
    return parents


def _neighbours(path: Path) -> str | None:
    from orchestrator.plugins import nearest

    folder = path.parent
    names = sorted(found.name for found in folder.glob("*.yaml")) if folder.is_dir() else []
    return f"in {folder}: {nearest(path.name, names)}" if names else None
