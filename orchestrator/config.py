"""`Model`, the base of every recipe section and of every value that is stored: frozen, an unknown key is an error.

The sentence under a field is its help text, in the JSON Schema too.
"""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A typed, frozen value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())
