"""What an accelerator is, as far as planning needs it, in base units: bytes, bytes/s, dense FLOP/s."""

from pydantic import Field

from orchestrator.config import Model
from orchestrator.units import Bytes


class Gpu(Model):
    """One accelerator. None is unknown, never a guess."""

    id: str
    """Such as h100-sxm."""
    kind: str
    """The recipe's word: H100, A100-80GB, MI300X, RTX-4090; several parts may share one, the first listed is meant."""
    aliases: list[str] = []
    """Other names, as tools and tables write them."""
    name: str
    """The vendor's name."""
    vendor: str
    """nvidia, amd or huawei."""
    arch: str
    """Such as sm_90 or gfx942."""
    memory_nominal: Bytes = Field(gt=0)
    """As it is sold."""
    memory_visible: Bytes = Field(gt=0)
    """What a framework sees, the low end of what was observed: a plan must fit this."""
    visible_source: str | None = None
    """Where the visible memory was read; None: not observed, 2 % under nominal is assumed."""
    bandwidth: float | None = Field(None, gt=0)
    """Of its memory, bytes/s."""
    flops: dict[str, float] = {}
    """Dense peak FLOP/s by type: bf16, fp16, tf32, fp8, int8, fp4; a type that is missing is unknown or not there."""
    dtypes: list[str] = []
    """Types that its matrix units compute with."""
    link_bandwidth: float | None = Field(None, gt=0)
    """Between the GPUs of one node, all links of one GPU together, bytes/s per direction."""
    peer_bandwidth: float | None = Field(None, gt=0)
    """To one other GPU of the node where that is less, as in a full mesh of single links; bytes/s per direction."""
    pcie_bandwidth: float | None = Field(None, gt=0)
    """To the host, bytes/s per direction."""
    node_bandwidth: float | None = Field(None, gt=0)
    """Between nodes, per GPU, bytes/s per direction."""
    tdp_watts: float | None = Field(None, gt=0)
    """Power limit."""
    notes: str | None = None
    """What to mind."""
    source: str | None = None
    """Where this was read."""
    date: str | None = None
    """When."""
    verified: bool = False
    """Whether speed and memory were read in a primary source."""
