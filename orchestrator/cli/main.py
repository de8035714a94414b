"""`orch`: runs a command; an expected error is one message on stderr and its exit code. Only cli/ prints or exits."""

import atexit
import gc
import sys

from orchestrator.cli import (  # noqa: F401  each registers its commands
    bench,
    bench_run,
    catalog,
    clusters,
    controller,
    cost,
    engines,
    engines_matrix,
    releases,
    runs,
    schedule,
    store,
)
from orchestrator.cli.app import app
from orchestrator.errors import OrchError


def main() -> None:
    """The program."""
    # what is imported stays until the end: looking for garbage in it takes a tenth of a short command's time
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
    try:
        app()
    except OrchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
