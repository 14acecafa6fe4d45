"""What a training shows of itself: progress lines, MLflow metrics and validation images."""

import io

from PIL import Image

from jobs import storage
from jobs.registry.tracking import Tracker
from jobs.training.job import TrainingJob
from jobs.training.progress_stream import ProgressWriter

VALIDATION_FOLDER = "validation"


class Recorder:
    """Writes on rank 0 and does nothing on the other ranks.

    Args:
        job: The job; its MLflow run has been started by the driver.
        rank: This worker's number.
    """

    def __init__(self, job: TrainingJob, rank: int) -> None:
        self._job = job
        self._writer: ProgressWriter | None = None
        self._tracker: Tracker | None = None
        if rank == 0:
            self._writer = ProgressWriter(job.output_uri)
            self._tracker = Tracker(job.tracking)
            self._tracker.start("train", run_id=job.run_id)

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report the state of a stage to the driver."""
        if self._writer is not None:
            self._writer.update(stage, done, total, note)

    def message(self, text: str) -> None:
        """Tell the driver something once."""
        if self._writer is not None:
            self._writer.message(text)

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Record metrics of a step in MLflow."""
        if self._tracker is not None:
            self._tracker.log_metrics(metrics, step)

    def image(self, image: Image.Image, step: int) -> None:
        """Keep a validation image under ``validation/`` of the output and in MLflow."""
        if self._tracker is None:
            return
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        name = f"step-{step:06d}.png"
        uri = storage.join_uri(self._job.output_uri, VALIDATION_FOLDER, name)
        storage.write_bytes(uri, buffer.getvalue())
        self._tracker.log_image(image, "validation", step)
