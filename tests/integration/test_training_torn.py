"""A driver that is killed with all it has started, and the checkpoints that it left.

The newest is not whole, since its upload was cut off, and the one before has a wrong bit.
"""

import json
import threading
from pathlib import Path

import pytest

from jobs.training.attempts import list_checkpoints
from jobs.training.checkpoints import whole_files
from tests.fault_proxy import FaultProxy
from tests.integration.training_process import (
    assert_same_predictor,
    joining_ray,
    messages,
    training_process,
)
from tests.integration.training_world import World, history, losses
from tests.training_servers import s3_environment, s3_over

pytestmark = pytest.mark.slow


class Hold:
    """Lets one file through to no end, as if the network hung."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.reached, self._never = threading.Event(), threading.Event()

    def __call__(self, method: str, path: str) -> None:
        if method == "PUT" and self.part in path:
            self.reached.set()
            self._never.wait()


def flip_a_bit(checkpoint: Path) -> None:
    (share,) = checkpoint.glob("state-00000-*.safetensors")
    data = bytearray(share.read_bytes())
    data[-1] ^= 1
    share.write_bytes(data)


def test_killed_and_gone_on_from_the_newest_whole_checkpoint_equals_uninterrupted(
    world: World, trained: object, tmp_path: Path
) -> None:
    output, log = tmp_path / "s3" / "bucket" / "output", tmp_path / "driver.log"
    output.parent.mkdir(parents=True)
    with s3_over(tmp_path / "s3") as store, FaultProxy(store.endpoint) as proxy:
        hold = proxy.before_request = Hold("step-00000018/manifest-00001")
        run = (world, world.config, "s3://bucket/output", log, world.database)
        # It has a Ray of its own, which is killed too.
        with training_process(*run, s3_environment(proxy.endpoint)) as driver:
            driver.wait_until(hold.reached.is_set)
        assert not (output / "training.json").exists(), "the run ended before it was killed"
        run_id = json.loads((output / "run.json").read_text())["run_id"]
        torn, flipped, whole = map(Path, list_checkpoints(str(output / "checkpoints")))
        assert [path.name[-2:] for path in (torn, flipped, whole)] == ["18", "12", "06"]
        assert list(torn.iterdir())
        assert whole_files(str(torn)) is None
        flip_a_bit(flipped)
        with training_process(*run, joining_ray(s3_environment(store.endpoint))) as driver:
            driver.wait()
    lines = [line for line in log.read_text().splitlines() if "is not whole" in line]
    assert [path.name in line for path, line in zip((torn, flipped), lines, strict=True)] == [
        True
    ] * 2
    assert "resumed at step 6 with 2 workers" in messages(output)
    record = history(output)
    assert record["resumed_at"] == [6]
    assert record["run_id"] == run_id
    assert_same_predictor(output, world.folder / "whole", atol=1e-6)
    assert losses(output) == pytest.approx(losses(world.folder / "whole"))
