"""Worker processes do not outlive a job that was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.corpus.pack import run_pack
from jobs.corpus.picture_sample import PackConfig
from jobs.progress import NullProgress

_TIMEOUT_S = 30
_KILLED_JOB = """
import multiprocessing, os, signal, sys
from jobs.corpus.pack import run_pack
from jobs.corpus.picture_sample import PackConfig

class Killer:
    def update(self, stage, done, total=None, note=""):
        if stage == "pack":
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    run_pack(PackConfig(shard_mib=1, num_workers=2), sys.argv[1], sys.argv[2], Killer())
"""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def test_workers_end_with_a_killed_job_and_the_rest_is_packed_later(tmp_path: Path) -> None:
    folder, script = tmp_path / "pictures", tmp_path / "job.py"
    folder.mkdir()
    script.write_text(_KILLED_JOB)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (640, 640, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"cloud {number}.png")
    command = [sys.executable, str(script), str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == -signal.SIGKILL
    workers = [int(number) for number in done.stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + _TIMEOUT_S
    while any(is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(worker) for worker in workers)
    config = PackConfig(shard_mib=1, num_workers=1)
    run_pack(config, folder, str(tmp_path / "out"), NullProgress())
    run_pack(config, folder, str(tmp_path / "whole"), NullProgress())
    for path in (tmp_path / "whole").iterdir():
        if path.name != "run.json":
            assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
