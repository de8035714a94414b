"""SHA-256 digests of values (canonical JSON), of files and of folders."""

import hashlib
import json
from pathlib import Path
from typing import Any


def canonical(value: Any) -> bytes:
    """Canonical JSON: key order and spaces do not matter."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest_value(value: Any) -> str:
    """64 hex digits over canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()


def digest_path(path: Path) -> tuple[str, int]:
    """(64 hex digits, bytes) of a file, or of a folder by its files' relative names and contents."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
    parts, size = [], 0
    for file_path in files_of(path):
        digest, length = digest_path(file_path)
        parts.append((str(file_path.relative_to(path)), digest))
        size += length
    return digest_value(parts), size


def files_of(folder: Path) -> list[Path]:
    """All files below a folder, in the order that its digest has them."""
    return sorted(found for found in folder.rglob("*") if found.is_file())
