"""What the mining job refuses before it does any work."""

from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.mining.config import MiningConfig
from jobs.mining.run import run_mining
from jobs.progress import NullProgress
from jobs.shards import ShardWriter


@pytest.mark.parametrize("source", ["data/shards", "data/shards/pack-00000.tar"])
def test_input_where_the_pairs_go_is_refused(source: str, workspace: Path) -> None:
    with ShardWriter("data/shards", "pack") as writer:
        writer.write("a", {"txt": b"x"})
    with pytest.raises(InputError, match="under shards/") as caught:
        run_mining(MiningConfig(), source, "data", NullProgress())
    assert caught.value.field == "output"
    assert [path.name for path in Path("data/shards").iterdir()] == ["pack-00000.tar"]


def test_output_inside_the_input_is_refused(workspace: Path) -> None:
    with ShardWriter("data", "pack") as writer:
        writer.write("a", {"txt": b"x"})
    with pytest.raises(InputError, match="inside the input"):
        run_mining(MiningConfig(), "data", "data/mined", NullProgress())
