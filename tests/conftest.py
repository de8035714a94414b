"""For all tests: no store but their own, and a real PostgreSQL server for those that ask for it."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.postgresql import Server

os.environ.pop("ORCH_STORE", None)  # a developer's own store is not for tests
os.environ.pop("ORCH_WHO", None)


@pytest.fixture(scope="session")
def postgresql() -> "Iterator[Server]":
    """One server for the whole session; each test takes a store of its own from it (`fresh`)."""
    from tests import postgresql

    found = postgresql.binaries()
    if found is None:
        reason = "no PostgreSQL here (initdb, pg_ctl): install the package postgresql"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with postgresql.running(found) as server:
        yield server
