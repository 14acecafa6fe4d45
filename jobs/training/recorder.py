"""What a training shows of itself: progress lines, MLflow metrics and validation images."""

import io
import time
from collections.abc import Mapping
from functools import partial

from PIL import Image

from jobs import storage
from jobs.registry.tracking import Tracker
from jobs.training.job import TrainingJob
from jobs.training.patience import BackgroundWriter
from jobs.training.progress_stream import ProgressWriter

VALIDATION_FOLDER = "validation"


class Recorder:
    """Writes on rank 0 and does nothing on the other ranks.

    The training never waits for it: while storage or MLflow are away, what is recorded is kept,
    up to a limit.

    Args:
        job: The job; its MLflow run has been started by the driver.
        rank: This worker's number.
    """

    def __init__(self, job: TrainingJob, rank: int) -> None:
        self._job = job
        self._tracker: Tracker | None = None
        self._storage: BackgroundWriter | None = None
        self._mlflow: BackgroundWriter | None = None
        if rank == 0:
            self._progress = ProgressWriter(job.output_uri)
            self._storage = BackgroundWriter("storage")
            self._mlflow = BackgroundWriter("MLflow")

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report the state of a stage to the driver."""
        if self._storage is not None:
            self._storage.add(partial(self._progress.update, stage, done, total, note))

    def message(self, text: str) -> None:
        """Tell the driver something once."""
        if self._storage is not None:
            self._storage.add(partial(self._progress.message, text))

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of a step in MLflow."""
        if self._mlflow is not None:
            kept, time_s = dict(metrics), time.time()
            self._mlflow.add(lambda: self._run().log_metrics(kept, step, time_s))

    def image(self, image: Image.Image, step: int) -> None:
        """Keep a validation image under ``validation/`` of the output and in MLflow."""
        if self._storage is None or self._mlflow is None:
            return
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        data = buffer.getvalue()
        name = f"step-{step:06d}.png"
        uri = storage.join_uri(self._job.output_uri, VALIDATION_FOLDER, name)
        self._storage.add(partial(storage.write_bytes, uri, data), len(data))
        self._mlflow.add(partial(self._log_image, data, step), len(data))

    def _log_image(self, data: bytes, step: int) -> None:
        with Image.open(io.BytesIO(data)) as image:
            self._run().log_image(image, "validation", step)

    def close(self, patience_s: float) -> None:
        """Wait for what is still to be written, for each server at most ``patience_s`` seconds."""
        for writer in (self._storage, self._mlflow):
            if writer is not None:
                writer.close(patience_s)

    def _run(self) -> Tracker:
        """The MLflow run, opened when its server answers."""
        if self._tracker is None:
            tracker = Tracker(self._job.tracking)
            tracker.start("train", run_id=self._job.run_id)
            self._tracker = tracker
        return self._tracker
