"""Which release answers, as a pure choice."""

import pytest

from orchestrator.gateway.routing import RoutingError, Table


def release(number, *, service="legal-assistant", state="warm"):
    url = f"http://127.0.0.1:{9000 + number}/v1"
    return {"service": service, "number": number, "url": url, "model": service, "state": state}


def table(*releases, **current):
    services = {name.replace("_", "-"): {"current": number} for name, number in current.items()}
    return Table.read({"services": services, "releases": list(releases)})


TWO = table(release(1), release(2), release(3, state="stopped"), legal_assistant=2)


@pytest.mark.parametrize(
    ("model", "number"), [("legal-assistant", 2), ("legal-assistant@1", 1), ("legal-assistant@2", 2), (None, 2)]
)
def test_the_model_names_a_service_or_a_release(model, number):
    assert TWO.choose(model).number == number


@pytest.mark.parametrize("model", ["gpt-5", "legal-assistant@9", "legal-assistant@two", "other@1", ""])
def test_an_unknown_model_is_told_what_exists(model):
    with pytest.raises(
        RoutingError, match="available: legal-assistant, legal-assistant@1, legal-assistant@2"
    ) as refused:
        TWO.choose(model)
    assert refused.value.status == 404
    assert refused.value.body()["error"]["code"] == "model_not_found"


def test_a_release_that_is_not_warm_is_unavailable():
    with pytest.raises(RoutingError, match="legal-assistant@3 is stopped") as refused:
        TWO.choose("legal-assistant@3")
    assert refused.value.status == 503


def test_a_service_without_a_release_is_unavailable():
    with pytest.raises(RoutingError, match="no release yet") as refused:
        table(legal_assistant=None).choose("legal-assistant")
    assert refused.value.status == 503


def test_without_a_model_several_services_are_ambiguous():
    several = table(release(1), release(1, service="summary"), legal_assistant=1, summary=1)
    with pytest.raises(RoutingError, match="names no model; available: legal-assistant, summary"):
        several.choose(None)


def test_nothing_released_is_said():
    with pytest.raises(RoutingError, match="nothing is released yet"):
        table().choose("legal-assistant")
