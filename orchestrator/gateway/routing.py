"""Which release answers a request: a pure choice over the table of services and releases.

`legal-assistant` is the service's current release, `legal-assistant@2` is that very release while it is warm, and a
request without a model goes to the only service there is. `RoutingError` is the answer where nothing can be chosen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Routes(Protocol):
    """Where the table comes from: the store, or a dict in a test."""

    def routes(self) -> Mapping[str, Any]:
        """`{"services": {name: {"current": n | None}}, "releases": [{service, number, url, model, state}]}`."""
        ...

    def watch(self) -> Callable[[], bool]:
        """A cheap function that is true when the table may have changed since it was last asked, and at first."""
        ...


@dataclass(frozen=True)
class Route:
    """One release and the engine that answers for it."""

    service: str
    number: int
    state: str
    url: str | None
    """Base URL of the engine's OpenAI API, such as http://127.0.0.1:41231/v1."""
    model: str | None
    """The name by which the engine knows the model; None where it takes any name."""
    request_fields: Mapping[str, Any] | None = None
    """What each request to the engine must say besides, such as the adapter that answers."""

    @property
    def name(self) -> str:
        """`service@number`."""
        return f"{self.service}@{self.number}"

    @property
    def warm(self) -> bool:
        """Whether an engine answers for it now."""
        return self.state == "warm" and self.url is not None


class RoutingError(Exception):
    """No release can answer; carries the HTTP status and the fields of an OpenAI error object."""

    def __init__(self, status: int, message: str, *, code: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> dict[str, Any]:
        """The error as OpenAI clients expect it."""
        kind = "invalid_request_error" if self.status < 500 else "service_unavailable_error"
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


@dataclass(frozen=True)
class Table:
    """All services and releases at one moment."""

    current: Mapping[str, int | None]
    releases: Mapping[tuple[str, int], Route]

    @classmethod
    def read(cls, routes: Mapping[str, Any]) -> "Table":
        """The table in what `Routes.routes` returns."""
        names = Route.__dataclass_fields__
        found = [Route(**{name: row[name] for name in names if name in row}) for row in routes["releases"]]
        current = {name: service["current"] for name, service in routes["services"].items()}
        return cls(current, {(route.service, route.number): route for route in found})

    def choose(self, model: str | None) -> Route:
        """The release that answers for `model`. Raises RoutingError: 404 for an unknown name, 503 for a cold one."""
        service, number = self._wanted(model)
        if number is None:
            raise RoutingError(503, f"the service {service!r} has no release yet", code="no_release")
        route = self.releases.get((service, number))
        if route is None:
            raise self._unknown(f"{service}@{number}")
        if not route.warm:
            raise RoutingError(503, f"the release {route.name} is {route.state}, not warm", code="release_not_warm")
        return route

    def _wanted(self, model: str | None) -> tuple[str, int | None]:
        if model is None:
            if len(self.current) != 1:
                raise self._unknown(None)
            model = next(iter(self.current))
        if model in self.current:
            return model, self.current[model]
        service, _, number = model.rpartition("@")
        if service in self.current and number.isdecimal():
            return service, int(number)
        raise self._unknown(model)

    def _unknown(self, model: str | None) -> RoutingError:
        found = "the request names no model" if model is None else f"the model {model!r} does not exist"
        names = ", ".join(self.names()) or "nothing is released yet"
        return RoutingError(404, f"{found}; available: {names}", code="model_not_found")

    def names(self) -> list[str]:
        """Every name that a request may use now: services with a current release, then warm releases."""
        services = [name for name, number in self.current.items() if number is not None]
        return [*services, *(route.name for route in self.releases.values() if route.warm)]
