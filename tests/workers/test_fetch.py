"""Downloads from the hub, whose answers are made up here."""

import pytest

from orchestrator.errors import InputError

httpx = pytest.importorskip("httpx")
errors = pytest.importorskip("huggingface_hub.errors")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            lambda: errors.RevisionNotFoundError(
                "no", response=httpx.Response(404, request=httpx.Request("GET", "https://hub"))
            ),
            "the hub's model 'org/model' has no revision 'nope'",
        ),
        (lambda: errors.HFValidationError("bad name"), "'org/model' is neither a path here nor a name of the hub"),
    ],
)
def test_what_the_hub_does_not_have_is_bad_input(monkeypatch, error, said):
    from orchestrator.workers import fetch

    def snapshot_download(*_, **__):
        raise error()

    monkeypatch.setattr(fetch, "snapshot_download", snapshot_download)
    with pytest.raises(InputError, match=said):
        fetch.fetch({"repository": "org/model", "revision": "nope", "kind": "model"})
