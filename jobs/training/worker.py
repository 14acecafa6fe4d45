"""The training loop of one Ray Train worker."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from i2l_model.backbones import Backbone
from i2l_model.predictor import LoraPredictor
from jobs.training.agreement import AgreedInputError, agreed_input
from jobs.training.averaging import WeightAverage
from jobs.training.checkpoints import TrainerState
from jobs.training.deepspeed_config import create_engine
from jobs.training.entry import TrainingDiverged
from jobs.training.feed import BatchFeed
from jobs.training.inputs import open_loader
from jobs.training.job import TrainingJob
from jobs.training.loading import BatchLoader
from jobs.training.models import build_predictor, check_sizes, load_frozen_backbone
from jobs.training.objective import StyleObjective
from jobs.training.preemption import PreemptionWatch
from jobs.training.profiling import profiled
from jobs.training.recorder import Recorder
from jobs.training.sampling import StyleSampler
from jobs.training.sharding import shard_backbone
from jobs.training.trainer import Trainer
from jobs.training.validation import Validator
from jobs.training.worker_processes import limit_collectives

_LAST_WORDS_S = 10.0  # for what a failing run still has to say


def train(settings: dict[str, Any]) -> Exception | None:
    """Do what `jobs.training.entry` says."""
    job = TrainingJob.model_validate(settings)
    config = job.config
    torch.set_num_threads(config.threads_per_worker)
    recorder = Recorder(job, dist.get_rank())
    try:
        trainer = build_trainer(job, recorder)
        trainer.restore()
        preemption = PreemptionWatch()
        limit_collectives(config.collective_timeout_s)
        steps = range(trainer.state.step, config.steps)
        for step in profiled(job, steps, recorder.message):
            trainer.train_step(step)
            notice = preemption.notice()
            last = step + 1 == config.steps
            if last or (step + 1) % config.validate_every == 0:
                trainer.validate(step + 1)
            if notice is not None:
                recorder.message(f"{notice}: checkpoint at step {step + 1}")
            if last or notice is not None or (step + 1) % config.checkpoint_every == 0:
                trainer.checkpoint(step + 1)
        trainer.finish()
    except (TrainingDiverged, AgreedInputError) as error:  # raised by all workers
        recorder.close(_LAST_WORDS_S)
        return error
    except BaseException:
        recorder.close(_LAST_WORDS_S)
        raise
    recorder.close(config.storage_patience_s)
    return None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a worker reads without the others; pairs that are held out only where there are some."""

    backbone: Backbone
    predictor: LoraPredictor
    loader: BatchLoader
    held_out: BatchLoader | None


def build_trainer(job: TrainingJob, recorder: Recorder) -> Trainer:
    """Load backbone, data and predictor, and wrap the predictor for training.

    Raises:
        AgreedInputError: If they do not fit together, or cannot be read by a worker.
    """
    config = job.config
    rank, world_size = dist.get_rank(), dist.get_world_size()
    shards = min(config.backbone_shards, world_size)
    with agreed_input():
        parts = _read_parts(job, recorder, job.device if shards == 1 else "cpu")
    backbone, predictor = parts.backbone, parts.predictor
    if shards > 1:
        shard_backbone(backbone, shards, job.device)
    with agreed_input():
        held_out = parts.held_out
        validator = None if held_out is None else Validator(held_out, backbone, config)
    template = copy.deepcopy(predictor) if rank == 0 else None
    engine = create_engine(StyleObjective(predictor, backbone), config, job.device)
    engine.train()
    loader = parts.loader
    return Trainer(
        job=job,
        engine=engine,
        average=WeightAverage(engine, config.ema_decay),
        sampler=StyleSampler(loader.index, loader.buckets, config),
        feed=BatchFeed(job.inputs, config, loader, rank, world_size),
        validator=validator,
        template=template,
        recorder=recorder,
        state=TrainerState(world_size=world_size, zero_stage=config.zero_stage),
    )


def _read_parts(job: TrainingJob, recorder: Recorder, device: str) -> _Parts:
    config = job.config
    backbone = load_frozen_backbone(config, device)
    if config.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()
    predictor = build_predictor(config, backbone, job.init_uri)
    sizes = {"ref_size": predictor.image_size, "target_size": backbone.image_size}
    recorder.progress("read pairs", 0, 1)
    loader = open_loader(job.inputs, config, "train", **sizes)
    check_sizes(loader.buckets.sizes, backbone)
    index = loader.index
    recorder.progress("read pairs", 1, 1, f"{index.num_pairs} pairs, {len(index.styles)} styles")
    held_out = None
    if "val" in job.inputs.index_uris:
        held_out = open_loader(job.inputs, config, "val", **sizes)
    return _Parts(backbone, predictor, loader, held_out)
