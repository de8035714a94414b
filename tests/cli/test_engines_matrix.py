"""`orch engines matrix` as a user types it."""

import json

import pytest

from tests.cli.conftest import Orch


def test_the_table_fits_a_screen_and_has_every_accelerator(orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    done = orch("engines", "matrix")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["format", "H100", "A100-80GB", "RTX-4090", "B200", "MI300X", "CPU"]
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("llama_cpp") for line in lines)


def test_one_engine_on_one_accelerator_as_data(orch: Orch) -> None:
    rows = json.loads(orch("engines", "matrix", "--engine", "llama_cpp", "--gpu", "rtx-4090", "--json").stdout)
    q8 = next(row for row in rows if row["quantizations"] == ["Q8_0"])
    assert q8["cells"] == {"RTX-4090": {"way": "native", "reason": ""}}
    cpu = json.loads(orch("engines", "matrix", "--engine", "llama_cpp", "--gpu", "cpu", "--json").stdout)
    assert list(cpu[0]["cells"]) == ["CPU"]


@pytest.mark.parametrize(
    ("option", "said"),
    [(("--engine", "lama_cpp"), "did you mean 'llama_cpp'"), (("--gpu", "H10"), "no GPU 'H10'; nearest: H100")],
)
def test_an_unknown_engine_or_gpu_names_the_nearest(orch: Orch, option: tuple[str, str], said: str) -> None:
    done = orch("engines", "matrix", *option)
    assert done.returncode == 2
    assert said in done.stderr
