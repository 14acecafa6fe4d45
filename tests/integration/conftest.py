"""One uninterrupted training, which several files compare with."""

import pytest

from jobs.registry.tracking import TrackingConfig
from jobs.training.run import TrainingResult, run_training
from tests.integration.training_world import Recording, World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def trained(world: World, ray_cluster: None) -> tuple[TrainingResult, Recording]:
    recording = Recording()
    pictures = world.folder / "whole" / "validation"
    pictures.mkdir(parents=True)
    (pictures / "step-000001.png").write_bytes(b"of another training")
    result = run_training(
        world.config,
        str(world.pairs),
        str(world.folder / "whole"),
        progress=recording,
        tracking=TrackingConfig(uri=world.database),
    )
    return result, recording
