"""A registry on SQLite."""

import pytest

from jobs.registry.tracking import TrackingConfig
from jobs.registry.versions import ModelRegistry


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    """One database for all tests, which use models of their own: creating one takes seconds."""
    return TrackingConfig().resolve(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def registry(tracking: TrackingConfig) -> ModelRegistry:
    return ModelRegistry(tracking)
