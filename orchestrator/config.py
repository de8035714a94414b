"""`Model`, the base of every recipe section and of every value that is stored: frozen, an unknown key is an error.

The sentence under a field is its help text, in the JSON Schema too.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Model(BaseModel):
    """A typed, frozen value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


def _refused(value: Any) -> None:
    if value is not None:
        raise ValueError("this is not available yet")


NotAvailable = Annotated[Any, BeforeValidator(_refused)]
"""Type of a key that is known by name and refused."""
