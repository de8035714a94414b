"""Leases with fencing tokens: at most one process acts under a name, and one that was away too long is refused.

    lease = store.leases.acquire("controller", holder, for_s=15)     # None: somebody else has it
    store.under(lease).move_run(...)                                 # refused once there is a later holder
    lease = store.leases.renew(lease, for_s=15)                      # at a third of the time

Time is the database's own, so that no machine's clock matters.
"""

from typing import Any

from sqlalchemy import Connection, insert, select, text, update

from orchestrator.errors import StaleClaimError
from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.records import Lease

_TABLE = schema.leases


class Leases:
    """The part of the store that `Store.leases` is."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def acquire(self, name: str, holder: str, for_s: float) -> Lease | None:
        """The lease, if it is free or has expired; None while somebody holds it, the same holder included."""
        mine = _TABLE.c.name == name
        with self._db.begin() as connection:
            now = self._db.now(connection)
            found = connection.execute(select(_TABLE).where(mine)).one_or_none()
            if found is None:
                connection.execute(insert(_TABLE).values(name=name, fence=0, expires=now))
            elif found.holder is not None and found.expires > now:
                return None
            lease = Lease(name=name, holder=holder, fence=(found.fence if found else 0) + 1, expires=now + for_s)
            connection.execute(update(_TABLE).where(mine).values(**lease.model_dump()))
            self._event(connection, "lease.acquired", lease, after=found.holder if found else None)
        return lease

    def holder(self, name: str) -> str | None:
        """Who holds it now; None when nobody does, or it has expired."""
        query = select(_TABLE.c.holder).where(_TABLE.c.name == name, _TABLE.c.expires > text(self._db.backend.NOW))
        return next((row["holder"] for row in self._db.rows(query)), None)

    def renew(self, lease: Lease, for_s: float) -> Lease:
        """Hold it for `for_s` from now, even if it had expired. Raises StaleClaimError when it has a later holder."""
        with self._db.begin() as connection:
            enforce(connection, lease)
            renewed = lease.model_copy(update={"expires": self._db.now(connection) + for_s})
            connection.execute(update(_TABLE).where(_TABLE.c.name == lease.name).values(expires=renewed.expires))
        return renewed

    def release(self, lease: Lease) -> None:
        """Let the next one have it at once. Raises StaleClaimError when it has a later holder."""
        with self._db.begin() as connection:
            enforce(connection, lease)
            connection.execute(update(_TABLE).where(_TABLE.c.name == lease.name).values(holder=None))
            self._event(connection, "lease.released", lease)

    def _event(self, connection: Connection, kind: str, lease: Lease, **more: Any) -> None:
        data = {"lease": lease.name, "holder": lease.holder, "fence": lease.fence, **more}
        self._db.event(connection, kind, data=data)


def enforce(connection: Connection, lease: Lease) -> None:
    """Raises StaleClaimError unless it is still this holder's, in the transaction of what is about to be written."""
    found = connection.execute(select(_TABLE).where(_TABLE.c.name == lease.name)).one_or_none()
    if found is None or (found.holder, found.fence) != (lease.holder, lease.fence):
        now = f"{found.holder} holds it now" if found and found.holder else "it was released"
        raise StaleClaimError(
            f"{lease.holder} does not hold the lease {lease.name!r} any more: {now}; nothing was written"
        )
