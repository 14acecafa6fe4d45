import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from i2l_model.errors import InputError
from jobs.away import ServerAway
from jobs.training.agreement import AgreedInputError, agreed_input


def refuse(on_rank: int, folder: Path, rank: int) -> None:
    """Meet an input error on one of two ranks, and write what this one raises."""
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    try:
        with agreed_input():
            if rank == on_rank:
                raise InputError("pairs", "train-0.tar", "is damaged", "mine again")
    except AgreedInputError as error:
        (folder / str(rank)).write_bytes(pickle.dumps(error))
    dist.destroy_process_group()


def test_what_one_worker_cannot_read_all_refuse(tmp_path: Path) -> None:
    start = torch.multiprocessing.get_context("spawn").Process
    ranks = [start(target=refuse, args=(1, tmp_path, rank)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()
    for rank in range(2):
        error = pickle.loads((tmp_path / str(rank)).read_bytes())
        assert isinstance(error, AgreedInputError)
        assert str(error) == "pairs (train-0.tar) is damaged; mine again"


@pytest.mark.usefixtures("process_group")
def test_a_server_that_is_away_is_left_to_the_next_start() -> None:
    with pytest.raises(ServerAway), agreed_input():
        raise ServerAway("uri", "s3://bucket/x", "cannot be reached", "start it")
    with agreed_input():
        pass
