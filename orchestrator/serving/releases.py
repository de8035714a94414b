"""Promotion and rollback: which release answers for a service. Only the store is written; the gateway follows it."""

import contextlib

from orchestrator.errors import InputError, NotAllowedError
from orchestrator.store.records import Release
from orchestrator.store.store import Store


def rollback_target(store: Store, service: str) -> Release:
    """The release that `orch rollback` goes to: the one that was made current last before the current one.

    A release that was rolled back from is never chosen, so that a second rollback goes further back.
    Raises NotAllowedError when there is none.
    """
    current = store.service(service).current
    before = [r for r in store.releases(service) if r.promoted and not r.withdrawn and r.number != current]
    if not before:
        now = f"{service}@{current}" if current else "nothing"
        raise NotAllowedError(
            f"{service} has no earlier release to go back to; {now} is serving",
            next_step=f"`orch releases {service}` lists all; `orch promote {service} --to N` chooses one",
        )
    return max(before, key=lambda release: release.promoted or 0)


def rollback(store: Store, service: str, to: Release, reason: str | None) -> int | None:
    """Make `to` current and withdraw the release that was; the number of that one. The gateway sees it in 20 ms.

    Raises InputError when `to` is current already, NotAllowedError when no engine answers for it.
    """
    current = store.service(service).current
    if current == to.number:
        raise InputError(f"{to.name} is serving already", next_step=f"`orch releases {service}`")
    _must_be_warm(to)
    store.switch(service, to.number, expected=current, kind="release.rolled_back", reason=reason, withdraw=True)
    return current


def promote(store: Store, to: Release, reason: str | None) -> None:
    """Make `to` current. Raises NotAllowedError when no engine answers for it."""
    _must_be_warm(to)
    current = store.service(to.service).current
    store.switch(to.service, to.number, expected=current, kind="release.promoted", reason=reason)


def kept_warm(store: Store, service: str) -> set[int]:
    """Numbers of the releases whose engines must run: the current one and the one that a rollback goes to."""
    numbers = {store.service(service).current}
    with contextlib.suppress(NotAllowedError):
        numbers.add(rollback_target(store, service).number)
    return {number for number in numbers if number is not None}


def retire(store: Store, service: str) -> list[int]:
    """Stop the engines of all warm releases that are neither current nor the way back; they drain by themselves."""
    return store.stop_warm_but(service, kept_warm(store, service), "a newer release was promoted")


def _must_be_warm(release: Release) -> None:
    if release.state != "warm":
        raise NotAllowedError(
            f"{release.name} is {release.state}: no engine answers for it",
            next_step=f"`orch serve up {release.service}` starts the engines of {release.service}",
        )
