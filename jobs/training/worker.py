"""The training loop of one Ray Train worker."""

import copy
import re
import tempfile
from typing import Any

import torch
import torch.distributed as dist

from i2l_model.backbones import Backbone, load_backbone
from i2l_model.errors import InputError
from i2l_model.predictor import LoraPredictor, PredictorConfig
from jobs import storage
from jobs.training.averaging import WeightAverage
from jobs.training.checkpoints import TrainerState
from jobs.training.config import PredictorOptions, TrainingConfig
from jobs.training.data import has_split, load_pairs
from jobs.training.deepspeed_config import create_engine
from jobs.training.encoding import CachedEncoder, OnlineEncoder, TargetEncoder
from jobs.training.job import TrainingJob
from jobs.training.objective import StyleObjective
from jobs.training.recorder import Recorder
from jobs.training.sampling import StyleSampler
from jobs.training.trainer import Trainer
from jobs.training.validation import Validator

_LAST_WORDS_S = 10.0  # for what a failing run still has to say
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train_worker(settings: dict[str, Any]) -> None:
    """Train one rank from the newest checkpoint to the last step.

    Args:
        settings: A `TrainingJob` as JSON-ready values.
    """
    job = TrainingJob.model_validate(settings)
    config = job.config
    torch.set_num_threads(config.threads_per_worker)
    recorder = Recorder(job, dist.get_rank())
    try:
        trainer = build_trainer(job, recorder)
        trainer.restore()
        for step in range(trainer.state.step, config.steps):
            trainer.train_step(step)
            last = step + 1 == config.steps
            if last or (step + 1) % config.validate_every == 0:
                trainer.validate(step + 1)
            if last or (step + 1) % config.checkpoint_every == 0:
                trainer.checkpoint(step + 1)
        trainer.finish()
    except BaseException:
        recorder.close(_LAST_WORDS_S)
        raise
    recorder.close(config.storage_patience_s)


def build_trainer(job: TrainingJob, recorder: Recorder) -> Trainer:
    """Load backbone, data and predictor, and wrap the predictor for training."""
    config = job.config
    backbone = load_backbone(config.backbone, dtype=DTYPES[config.precision], device=_device(job))
    if config.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()
    predictor = build_predictor(config, backbone, job.init_uri)
    sizes = {"ref_size": predictor.image_size, "target_size": backbone.image_size}
    recorder.progress("read pairs", 0, 1)
    store = load_pairs(job.pairs_uri, "train", **sizes)
    recorder.progress("read pairs", 1, 1, f"{store.num_pairs} pairs, {len(store.styles)} styles")
    encoder: TargetEncoder = OnlineEncoder(backbone, store)
    if config.cache_latents:
        encoder = CachedEncoder(backbone, store, config.encode_batch_size, recorder.progress)
    validator = None
    if has_split(job.pairs_uri, "val"):
        validator = Validator(load_pairs(job.pairs_uri, "val", **sizes), backbone, config)
    template = copy.deepcopy(predictor) if dist.get_rank() == 0 else None
    engine = create_engine(StyleObjective(predictor, backbone), config, job.device)
    engine.train()
    return Trainer(
        job=job,
        engine=engine,
        average=WeightAverage(engine, config.ema_decay),
        sampler=StyleSampler(store, config),
        encoder=encoder,
        validator=validator,
        template=template,
        recorder=recorder,
        state=TrainerState(world_size=dist.get_world_size(), zero_stage=config.zero_stage),
    )


def _device(job: TrainingJob) -> str:
    return "cpu" if job.device == "cpu" else f"cuda:{torch.cuda.current_device()}"


def build_predictor(
    config: TrainingConfig, backbone: Backbone, init_uri: str | None
) -> LoraPredictor:
    """A new predictor for the backbone, or the weights of another training to start from.

    Raises:
        InputError: If no layer matches ``target_modules``, or the weights are of another
            architecture or backbone.
    """
    expected = predictor_config(config.predictor, backbone)
    torch.manual_seed(config.seed)
    predictor = LoraPredictor.build(expected)
    if init_uri is not None:
        with tempfile.TemporaryDirectory() as scratch:
            initial = LoraPredictor.from_pretrained(storage.download_folder(init_uri, scratch))
        initial.config.check_backbone(backbone)
        if initial.config.targets != expected.targets:
            fix = "use the target_modules it was trained with"
            raise InputError("init_from", init_uri, "has LoRAs for other layers", fix)
        predictor.load_state_dict(initial.state_dict())
    return predictor.train()


def predictor_config(options: PredictorOptions, backbone: Backbone) -> PredictorConfig:
    """The predictor's full configuration on a backbone.

    Raises:
        InputError: If no layer matches ``target_modules``, or the rank is too large for one.
    """
    patterns = [re.compile(pattern) for pattern in options.target_modules]
    targets = tuple(
        target
        for target in backbone.lora_targets()
        if not patterns or any(pattern.search(target.name) for pattern in patterns)
    )
    field = "training.predictor.target_modules"
    if not targets:
        some = ", ".join(target.name for target in backbone.lora_targets()[:3])
        fix = f"write expressions for names such as {some}"
        raise InputError(field, list(options.target_modules), "match no layer", fix)
    sizes = options.model_dump(exclude={"target_modules", "encoder", "dinov3"})
    try:
        return PredictorConfig(
            backbone=backbone.name,
            targets=targets,
            encoder=options.encoder,
            dinov3=options.dinov3,
            **sizes,
        )
    except ValueError as error:
        raise InputError(
            "training.predictor", sizes, f"does not fit the backbone: {error}", "change the sizes"
        ) from error
