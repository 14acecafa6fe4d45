"""A process group over the one GPU."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist


@pytest.fixture(scope="session")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one. DeepSpeed remembers the first group of a process, hence one for all tests."""
    torch.cuda.set_device(0)
    rendezvous = tmp_path_factory.mktemp("group") / "rendezvous"
    dist.init_process_group("nccl", init_method=f"file://{rendezvous}", world_size=1, rank=0)
    yield
    dist.destroy_process_group()
