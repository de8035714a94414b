"""Downloads a model or a data set from the Hugging Face hub into its cache; HF_TOKEN and HF_HOME are obeyed."""

from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from orchestrator.errors import InfrastructureError, InputError
from orchestrator.workers import protocol


def fetch(request: dict[str, Any]) -> dict[str, Any]:
    """{repository, revision, kind: model|dataset} -> {path}. Raises InputError for what does not exist."""
    repository, revision = request["repository"], request["revision"]
    try:
        return {"path": snapshot_download(repository, revision=revision, repo_type=request["kind"])}
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub has no {request['kind']} {repository!r} that this token may read",
            next_step="check the name; a gated one needs HF_TOKEN and an accepted licence",
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"the hub's {request['kind']} {repository!r} has no revision {revision!r}",
            next_step="check `revision` in the recipe: a commit, a branch or a tag",
        ) from error
    except HFValidationError as error:
        raise InputError(f"{repository!r} is neither a path here nor a name of the hub: {error}") from error
    except (HfHubHTTPError, OSError) as error:
        raise InfrastructureError(f"cannot download {repository} from the hub: {error}") from error


if __name__ == "__main__":
    protocol.main(fetch, silent_s=24 * 3600.0)
