"""Who is next: the higher class, then who is within the quota, then the shortest and narrowest.

Short and narrow runs first keeps the mean completion time low; what it starves gets a reservation. A run whose deadline
is near goes ahead of its class, the nearest deadline first.
"""

import numpy as np

from orchestrator.scheduler.rules import Rules
from orchestrator.scheduler.tables import Bools, Floats, Ints, Table


def order(table: Table, now: float, level: Floats, rules: Rules) -> Ints:
    """Rows of a RUN table, first one first, equal ones as they came.

    `level` is 0 for a run within its team's quota, else how far the team is beyond it.
    """
    work = np.maximum(table["seconds"], 1.0) * table["size"] ** rules.width
    work = np.where(table["preemptions"] > 0, work * rules.preempt_credit, work)
    pressing = urgent(table, now, rules)
    deadline = np.where(pressing, table["deadline"], np.inf)
    # this sort is unstable, and many times faster than a stable one: the last digits keep equal ones as they came
    found = np.argsort(work * (1 + 1e-12 * np.arange(len(work))))
    return _refined(found, level, deadline, -table["priority"])


def urgent(table: Table, now: float, rules: Rules) -> Bools:
    """Whether a run must start soon to keep its deadline, and still can."""
    slack = table["deadline"] - now - table["seconds"]
    return np.asarray((slack >= 0) & (slack <= rules.urgent * table["seconds"]))


def expired(table: Table, now: float) -> Bools:
    """Whether a run has waited for longer than it may."""
    return np.asarray(now - table["since"] > table["max_queue"])


def aged(table: Table, now: float, rules: Rules) -> Ints:
    """Rows that have waited long enough for a reservation: the highest class first, then the longest wait."""
    limit = np.maximum(rules.reserve_after, rules.reserve_factor * table["seconds"])
    rows = np.flatnonzero((now - table["since"] > limit) | urgent(table, now, rules))
    return rows[_refined(np.argsort(table["since"][rows]), -table["priority"][rows])]


def _refined(found: Ints, *keys: Floats) -> Ints:
    """This order, then by each key in turn, the last one counts most."""
    for key in keys:
        if len(key) and key.min() != key.max():
            found = found[np.argsort(key[found], kind="stable")]
    return found
