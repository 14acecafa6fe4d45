"""How pytest-xdist spreads the tests over processes."""

from xdist.scheduler import LoadFileScheduling

SHARING_FILES = {
    f"tests/integration/{name}.py": "the uninterrupted training"
    for name in (
        "test_training",
        "test_training_input",
        "test_training_outages",
        "test_training_preemption",
        "test_training_survives",
        "test_training_torn",
    )
}


class SharingFileScheduling(LoadFileScheduling):
    """Tests of a file stay together, and so do files that share a slow fixture of the session."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return SHARING_FILES.get(file, file)
