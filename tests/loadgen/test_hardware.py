"""Hardware from what the vendors' tools print."""

from orchestrator.loadgen.hardware import cpu_name, describe


def test_this_machine():
    found = describe()
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**28
    assert found["cpu"]
    assert isinstance(found["gpus"], list)


def test_cpu():
    assert cpu_name("processor : 0\nmodel name\t: AMD EPYC 7B13\n") == "AMD EPYC 7B13"
    assert cpu_name("") is None
