"""A user's own catalog extends the shipped one; what is wrong in it is named with file and line."""

from pathlib import Path

import pytest

from orchestrator.catalog.catalog import Catalog, load
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.errors import InputError, RecipeError


def own(tmp_path: Path, text: str, where: str = "catalog") -> Catalog:
    (tmp_path / where).mkdir(exist_ok=True, parents=True)
    (tmp_path / where / "ours.yaml").write_text(text)
    return load(tmp_path / "home", tmp_path)


def test_a_new_model_and_a_field_that_was_unknown(tmp_path: Path) -> None:
    catalog = own(
        tmp_path,
        """
models:
- id: acme/Tiny
  layers: 2
  hidden_size: 64
  intermediate_size: 128
  vocab_size: 100
  attention:
  - {layers: 2, heads: 4, kv_heads: 2, head_dim: 16}
- id: mistralai/Mistral-Medium-3.5-128B
  intermediate_size: 28672
  vocab_size: 131072
  source: our own reading
""",
    )
    assert catalog.model("Tiny").id == "acme/Tiny"
    found = catalog.model("Mistral-Medium-3.5-128B")
    assert isinstance(parameters(found), Parameters)
    assert (found.layers, found.verified, found.source) == (88, False, "our own reading")


def test_prices_replace_those_of_the_same_provider_and_come_first(tmp_path: Path) -> None:
    text = """
gpu_prices:
- {gpu: h100-sxm, provider: Nebius, usd_per_gpu_hour: 2.10, term: on-demand, date: 2026-11-20, source: our contract}
- {gpu: mi355x, provider: Acme, usd_per_gpu_hour: 3, date: 2026-11-20, source: their mail}
api_prices:
- {vendor: openai, model: gpt-4o, input_usd_per_million: 2, output_usd_per_million: 8, observed: 2026-11, source: us}
"""
    catalog = own(tmp_path, text)
    nebius = [p for p in catalog.gpu_prices("H100") if p.provider == "Nebius" and p.term == "on-demand"]
    assert [price.usd_per_gpu_hour for price in nebius] == [2.10]
    assert len(catalog.gpu_prices("MI355X")) == 1
    (price,) = catalog.api_prices("gpt-4o")
    assert price.input_usd_per_million == 2


def test_a_gpu_changes_only_the_fields_that_are_named(tmp_path: Path) -> None:
    gpu = own(tmp_path, "gpus:\n- {id: h100-sxm, memory_visible: 70 GiB}\n").gpu("H100")
    assert gpu.memory_visible == 70 * 2**30
    assert gpu.bandwidth == 3350e9


def test_the_project_s_folder_is_found_from_below_and_the_home_s_wins(tmp_path: Path) -> None:
    own(tmp_path, "gpus:\n- {id: h100-sxm, memory_visible: 70 GiB}\n")
    own(tmp_path, "gpus:\n- {id: h100-sxm, memory_visible: 71 GiB}\n", "home/catalog")
    below = tmp_path / "recipes" / "deep"
    below.mkdir(parents=True)
    assert load(None, below).gpu("H100").memory_visible == 70 * 2**30
    assert load(tmp_path / "home", below).gpu("H100").memory_visible == 71 * 2**30


def test_a_new_licence_is_known_to_the_gate(tmp_path: Path) -> None:
    text = "licenses:\n- {id: acme, name: Acme terms, rules: [{rule: use, allowed: [research], text: research only}]}\n"
    assert own(tmp_path, text).license("acme").name == "Acme terms"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "gpu_prices:\n- {gpu: h100-sxm, provider: A, usd_per_gpu_hour: -1, date: x, source: y}\n",
            r":2: .*usd_per_gpu",
        ),
        ("gpu_prices:\n- {gpu: h1O0, provider: A, usd_per_gpu_hour: 1, date: x, source: y}\n", r":2: .*h100-sxm"),
        ("gpu_price: []\n", r":1: unknown key 'gpu_price'; did you mean 'gpu_prices'"),
        ("models:\n- id: a/b\n  hidden: 4\n", r":3: unknown key 'models.0.hidden'"),
        ("models:\n- id: a/b\n  layers: many\n", r":3: models.0.layers"),
        ("models:\n- id: a/b\n  published_parameters: lots\n", r":3: .*write it like"),
        ("models:\n- id: a/b\n  id: a/c\n", r":3: duplicate key 'id'"),
        ("gpus:\n- {id: mine, kind: M}\n", r":2: missing key 'gpus.0.memory_nominal'"),
        ("models:\n- a/b\n", r":2: models.0"),
        ("licenses:\n- {id: x, name: X, rules: [{rule: magic}]}\n", r":2: .*magic"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        own(tmp_path, text)


def test_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ours.yaml:2: not YAML"):
        own(tmp_path, "{\n")


def test_the_example_of_the_guide_is_a_valid_file(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text()
    catalog = own(tmp_path, guide.split("```yaml\n")[1].split("```")[0])
    assert isinstance(parameters(catalog.model("Legal-70B")), Parameters)
    assert len(catalog.license("acme-terms").rules) == 2
