"""A tiny backbone, pairs and a process group of one for the training tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from i2l_model.backbones import Backbone
from i2l_model.backbones.tiny import build_tiny_zimage
from jobs.training.buckets import Buckets
from jobs.training.config import TrainingConfig
from jobs.training.inputs import TrainingInputs, open_loader
from jobs.training.loading import BatchLoader
from jobs.training.pair_index import PairIndex
from tests.pair_shards import write_pairs
from tests.training_inputs import make_inputs

SIZES = {"ref_size": 32, "target_size": 64}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train_styles=6, val_styles=3)


@pytest.fixture(scope="session")
def inputs(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingInputs:
    return make_inputs(pairs, tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def loader(inputs: TrainingInputs, config: TrainingConfig) -> BatchLoader:
    return open_loader(inputs, config, "train", **SIZES)


@pytest.fixture
def buckets(loader: BatchLoader) -> Buckets:
    return loader.buckets


@pytest.fixture
def index(loader: BatchLoader) -> PairIndex:
    return loader.index


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return build_tiny_zimage(0)


@pytest.fixture
def config() -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "backbone": "random-zimage",
            "steps": 20,
            "styles_per_step": 4,
            "targets_per_style": 3,
            "max_refs": 3,
            "num_workers": 1,
            "validation_targets": 2,
            "predictor": {
                "rank": 2,
                "dim": 16,
                "depth": 1,
                "num_heads": 2,
                "compress_dim": 4,
                "encoder": {
                    "image_size": 32,
                    "patch_size": 8,
                    "hidden_size": 16,
                    "num_layers": 1,
                    "num_heads": 2,
                },
            },
        }
    )


@pytest.fixture(scope="session")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one. DeepSpeed remembers the first group of a process, hence one for all tests."""
    rendezvous = tmp_path_factory.mktemp("group") / "rendezvous"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", world_size=1, rank=0)
    yield
    dist.destroy_process_group()
