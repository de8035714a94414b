"""Hardware from what the vendors' tools print."""

from orchestrator.loadgen.hardware import amd, cpu_name, describe, nvidia

AMD = """[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X", "vendor_id": "0x1002"},
  "vram": {"type": "HBM", "size": {"value": 196592, "unit": "MB"}},
  "driver": {"name": "amdgpu", "version": "6.12.12"}}]"""


def test_this_machine():
    found = describe()
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert found["cpu"]
    assert isinstance(found["gpus"], list)


def test_nvidia():
    text = "NVIDIA H100 80GB HBM3, 81559 MiB, 570.86.15\nNVIDIA GB10, [N/A], 580.1\n"
    assert nvidia(text) == [{"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 81559 * 2**20, "driver": "570.86.15"}]
    assert nvidia("No devices were found\n") == []


def test_amd_in_both_forms():
    expected = [{"name": "AMD Instinct MI300X", "memory_bytes": 196592 * 2**20, "driver": "6.12.12"}]
    assert amd(AMD) == amd(f'{{"gpu_data": {AMD}}}') == expected
    assert amd("") == amd("not json") == []


def test_cpu():
    assert cpu_name("processor : 0\nmodel name\t: AMD EPYC 7B13\n") == "AMD EPYC 7B13"
    assert cpu_name("") is None
