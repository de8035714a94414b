"""Fields of a config.json, read with care: the text part only, each an InputError where it is missing or nonsense."""

from typing import Any

from orchestrator.errors import InputError


class Fields:
    """The text part of a configuration; what is missing or nonsense is an InputError that names the file."""

    def __init__(self, text: dict[str, Any], file: str) -> None:
        self.text, self.file = text, file

    def get(self, name: str) -> Any:
        """A field, or None."""
        return self.text.get(name)

    def has(self, *names: str) -> bool:
        """Whether one of them is there with a value."""
        return any(self.text.get(name) not in (None, False, 0, []) for name in names)

    def count(self, name: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.text.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.lie(f"{name} must be a positive whole number, found {value!r}")
        return value

    def lie(self, text: str) -> InputError:
        """The error for a configuration that cannot be true."""
        return InputError(
            f"{self.file}: {text}",
            next_step="compare it with the model's page, or describe the model in catalog/*.yaml",
        )
