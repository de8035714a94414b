"""Which environments there are: those that engines declare, those that lie on this node, and who runs from them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator import engines, plugins
from orchestrator.environments.environment import Build, Environment, Installed, Kind
from orchestrator.environments.folder import Folder, State
from orchestrator.environments.site import Site
from orchestrator.errors import InputError
from orchestrator.store.store import Store


@dataclass(frozen=True)
class Found:
    """One environment on this node."""

    environment: Environment
    kind: Kind
    folder: Folder
    state: State
    used_by: list[str]
    """Releases whose engine runs from it, as `service@N`."""


def declared() -> dict[str, Environment]:
    """Every environment that an engine's file names, once each, by name."""
    modules = (plugins.load(engines, name) for name in plugins.names(engines))
    return {one.name: one for module in modules for one in module.ENVIRONMENTS}


def installable(kind: Kind) -> list[Environment]:
    """The declared ones that can be installed for this kind; what is compiled comes last, as it takes longest."""
    found = [one for one in declared().values() if kind in one.kinds]
    return sorted(found, key=lambda one: isinstance(one.kinds[kind], Build))


def named(text: str, store: Store) -> Environment:
    """What `NAME` or `NAME==VERSION` means, also one that is only on the disk. Raises InputError for any other text."""
    name, equals, version = text.partition("==")
    known = {one.name: one for one, _ in _on_disk(store)} | declared()
    if name not in known:
        raise InputError(f"no environment {name!r}; {plugins.nearest(name, list(known))}")
    if equals and not re.fullmatch(r"\d[\w.+]*", version):
        raise InputError(f"{text!r} names no version", next_step=f"write it like {name}=={known[name].version}")
    return known[name].at(version) if equals else known[name]


def listed(kind: Kind, store: Store) -> list[Found]:
    """The declared ones for this kind, then what else lies on this node: other versions, other kinds."""
    rows = [(one, kind) for one in declared().values()]
    rows += [row for row in _on_disk(store) if row not in rows]
    return [found(environment, of, store) for environment, of in rows]


def found(environment: Environment, kind: Kind, store: Store) -> Found:
    """What can be said of one."""
    folder = Folder.of(store.home, environment, kind)
    return Found(environment, kind, folder, folder.state(environment, kind), using(environment, kind, store))


def using(environment: Environment, kind: Kind, store: Store) -> list[str]:
    """Releases whose engine runs, or is about to run, from the environment's folder."""
    wanted = [release for release in store.releases() if release.state in ("starting", "warm")]
    return [
        release.name
        for release in wanted
        if (release.spec["engine_version"], release.spec["kind"]) == (str(environment), kind)
        and environment.name not in release.spec["images"]
    ]


def install(environment: Environment, kind: Kind, store: Store, say: Callable[[str], None]) -> Installed:
    """Make it, or make it again where it is half there or outdated. Raises InputError while a release runs from it."""
    if found(environment, kind, store).state == "outdated":
        _refuse_while_used(environment, kind, store)
    return Site(store.home, kind, say=say).install(environment)


def remove(environment: Environment, kind: Kind, store: Store) -> bool:
    """Delete its folder; whether there was one. Raises InputError while a release runs from it."""
    _refuse_while_used(environment, kind, store)
    return Site(store.home, kind).remove(environment)


def _refuse_while_used(environment: Environment, kind: Kind, store: Store) -> None:
    users = using(environment, kind, store)
    if users:
        stop = f"`orch serve down {users[0].partition('@')[0]}` stops it"
        raise InputError(f"{environment} is in use by {', '.join(users)}", next_step=stop)


def _on_disk(store: Store) -> list[tuple[Environment, Kind]]:
    """What the folders are called after; one that no engine declares any more can only be removed."""
    known = declared()
    names = [Folder(path).name for path in sorted((store.home / "engines").glob("*/"))]
    return [
        (known[name].at(version) if name in known else Environment(name=name, version=version), kind)
        for name, version, kind in filter(None, names)
    ]
