"""Where the store is: $ORCH_STORE, else `store:` of `$ORCH_HOME/orch.yaml`, else the file `orch.db` in $ORCH_HOME."""

import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.errors import InputError

VARIABLE = "ORCH_STORE"
_NEXT = "give postgresql://USER@HOST/DATABASE, or nothing for a SQLite file in $ORCH_HOME"
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite"}


def url_of(home: Path) -> URL:
    """The URL of the store that the folder `home` uses. Raises InputError for one that cannot be a store's."""
    for text, origin in ((os.environ.get(VARIABLE), f"${VARIABLE}"), _setting(home)):
        if text:
            return _parsed(text, origin)
    return URL.create("sqlite", database=str(home / "orch.db"))


def shown(url: URL) -> str:
    """As people read it: the path of a file, or a URL without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    secrets = {name: "hidden" for name in url.query if "password" in name}
    return url.set(drivername=url.get_backend_name()).update_query_dict(secrets).render_as_string(hide_password=True)


def _setting(home: Path) -> tuple[str | None, str]:
    path = home / "orch.yaml"
    if not path.is_file():
        return None, ""
    from orchestrator import documents

    document = documents.read(path)
    text, origin = document.data.get("store"), str(document.origins.get(("store",), path))
    if text is not None and not isinstance(text, str):
        raise InputError(f"{origin}: store: {text!r} is no URL", next_step=_NEXT)
    return text, f"{origin}: store"


def _parsed(text: str, origin: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise InputError(f"{origin} is no URL", next_step=_NEXT) from error  # it may hold a password: not shown
    driver = _DRIVERS.get(url.drivername)
    if driver is None or not url.database:
        raise InputError(f"{origin} cannot be a store: {url.render_as_string(hide_password=True)}", next_step=_NEXT)
    if driver == "sqlite" and not Path(url.database).is_absolute():
        raise InputError(
            f"{origin}: the SQLite file {url.database!r} needs an absolute path, which holds in every folder",
            next_step=f"sqlite:///{Path(url.database).absolute()}",
        )
    return url.set(drivername=driver)
