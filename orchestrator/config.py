"""`Model`, the base of every recipe section and of every value that is stored: frozen, an unknown key is an error.

The sentence under a field is its help text, in the JSON Schema too.
"""

import ast
import inspect
import itertools
import textwrap
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Model(BaseModel):
    """A typed, frozen value."""

    # deferred, and without use_attribute_docstrings, which reads the source of every class when it is made: together
    # they halve the time that a command needs to start
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        properties = handler.resolve_ref_schema(found).get("properties", {})
        for name, text in help_texts(cls).items():
            if name in properties:
                properties[name]["description"] = text
        return found


def help_texts(model: type[Model]) -> dict[str, str]:
    """Field -> the sentence under it, of the class and those it extends; by the field's alias where it has one."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, Model) and kind is not Model:
            found |= _sentences(kind)
    fields = model.model_fields
    return {fields[name].alias or name: text for name, text in found.items() if name in fields}


def _sentences(kind: type[Model]) -> dict[str, str]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError):  # made at run time, as a generic one with its parameter is
        return {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _refused(value: Any) -> None:
    if value is not None:
        raise ValueError("this is not available yet")


NotAvailable = Annotated[Any, BeforeValidator(_refused)]
"""Type of a key that is known by name and refused."""
