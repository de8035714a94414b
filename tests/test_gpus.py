"""Accelerators from what the vendors' tools print."""

import pytest

from orchestrator import gpus
from orchestrator.clusters.load import load_cluster
from orchestrator.gpus import amd, amd_free, kind, nvidia, rocm, rocm_free

AMD = """[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X", "vendor_id": "0x1002"},
  "vram": {"type": "HBM", "size": {"value": 196592, "unit": "MB"}},
  "driver": {"name": "amdgpu", "version": "6.12.12"}}]"""

ROCM = """{"card0": {"Card Series": "AMD Instinct MI300X OAM", "VRAM Total Memory (B)": "206141652992",
  "VRAM Total Used Memory (B)": "297930752"}, "system": {"Driver version": "6.8.5"}}"""


def test_nvidia():
    text = "NVIDIA H100 80GB HBM3, 81559 MiB, 570.86.15\nNVIDIA GB10, [N/A], 580.1\n"
    assert nvidia(text) == [
        {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 81559 * 2**20, "driver": "570.86.15"},
        {"name": "NVIDIA GB10", "memory_bytes": None, "driver": "580.1"},
    ]
    assert nvidia("No devices were found\n") == []


def test_amd_in_both_forms():
    expected = [{"name": "AMD Instinct MI300X", "memory_bytes": 196592 * 2**20, "driver": "6.12.12"}]
    assert amd(AMD) == amd(f'{{"gpu_data": {AMD}}}') == expected
    assert amd("") == amd("not json") == []


def test_free_memory_of_amd_is_unknown_where_it_cannot_be_read():
    text = '[{"gpu": 0, "mem_usage": {"free_vram": {"value": 196309, "unit": "MB"}}}, {"gpu": 1, "mem_usage": "N/A"}]'
    assert amd_free(text) == [196309 * 2**20, None]
    assert amd_free("") == []


def test_rocm_smi_answers_on_nodes_without_amd_smi():
    assert rocm(ROCM) == [{"name": "AMD Instinct MI300X OAM", "memory_bytes": 206141652992, "driver": "6.8.5"}]
    assert kind("AMD Instinct MI300X OAM", 206141652992) == "MI300X"
    assert rocm_free(ROCM) == [206141652992 - 297930752]
    assert rocm("") == rocm("WARNING: no GPU") == rocm_free("") == []


@pytest.mark.parametrize(
    ("name", "gigabytes", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 85, "H100"),
        ("NVIDIA GH200 480GB", 102, "GH200"),
        ("NVIDIA L40", 48, "L40"),
        ("NVIDIA L40S", 48, "L40S"),
        ("NVIDIA L4", 24, "L4"),
        ("NVIDIA A100-SXM4-80GB", 85, "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", 42, "A100-40GB"),
        ("AMD Instinct MI300X", 206, "MI300X"),
        ("NVIDIA Unheard Of", 1, "NVIDIA Unheard Of"),
    ],
)
def test_a_kind_is_a_whole_word_of_the_name(name, gigabytes, expected):
    assert kind(name, gigabytes * 10**9) == expected


def test_this_machine_is_probed_for_both_vendors(monkeypatch):
    monkeypatch.setattr(gpus, "output", lambda tool, *_: AMD if tool == "amd-smi" else "")
    assert load_cluster(None).accelerators() == {"MI300X": 1}
