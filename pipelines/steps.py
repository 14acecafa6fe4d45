"""What each step of the workflow does: call one job and hand over where its outputs are.

Every step takes the context of the run and returns plain values. Names that end with ``_uri`` are
places; ``content`` changes when the outputs do. Jobs are imported when their step runs.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2l_model.errors import InputError
from jobs.provenance import file_hash, json_hash
from pipelines.acceptance import count_pairs, problems
from pipelines.gate import Judgement, judge, promote_judged
from pipelines.predictors import initial_folder, warm_started
from pipelines.recipe import Recipe
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from jobs.progress import Progress
    from jobs.registry.tracking import TrackingConfig
    from jobs.registry.versions import PredictorVersion

Outputs = dict[str, Any]


@dataclass
class StepContext:
    """What a step sees: the settings, the places, and what earlier steps handed over."""

    recipe: Recipe
    workspace: Workspace
    progress: "Progress"
    outputs: dict[str, Outputs] = field(default_factory=dict)

    @property
    def tracking(self) -> "TrackingConfig":
        """Where MLflow records this workflow; an SQLite file in the workspace by default."""
        return self.recipe.tracking.resolve(self.workspace.tracking)

    def uri(self, step: str, name: str) -> str:
        """Return a place that an earlier step handed over."""
        return str(self.outputs[step][name])

    def target(self, step: str) -> str:
        """Return the folder that a step writes."""
        return str(self.workspace.folder(step))


def make_shards(context: StepContext) -> Outputs:
    """Draw the labelled grid, or pack the user's folder, as WebDataset shards."""
    recipe, target = context.recipe, context.target("shards")
    if recipe.corpus is not None:
        from jobs.corpus.stylegrid import write_corpus

        write_corpus(recipe.corpus, target, context.progress)
    else:
        from jobs.corpus.pack import run_pack

        assert recipe.pack is not None
        run_pack(recipe.pack, str(_own_folder(recipe)), target, context.progress)
    return {"shards_uri": target, "content": json_hash(list(_file_hashes(Path(target))))}


def mine_pairs(context: StepContext) -> Outputs:
    """Mine pairs of one style and different content, split by style."""
    from jobs.mining.run import run_mining

    target = context.target("pairs")
    shards_uri = context.uri("shards", "shards_uri")
    result = run_mining(context.recipe.mining, shards_uri, target, context.progress)
    return {
        "pairs_uri": target,
        "report_uri": result.report_uri,
        "content": result.content_hash,
    }


def check_pairs(context: StepContext) -> Sequence[str]:
    """Accept the mined pairs only if there are enough, and right where the truth is known."""
    from jobs.shards import list_shards, read_shard

    def records() -> Iterator[dict[str, Any]]:
        for shard in list_shards(f"{context.uri('pairs', 'pairs_uri')}/shards"):
            for sample in read_shard(shard):
                yield json.loads(sample.members["json"])

    return problems(count_pairs(records()), context.recipe.acceptance)


def train_predictor(context: StepContext) -> Outputs:
    """Train the predictor on the train split; a killed training goes on from its checkpoint."""
    from jobs.training.run import run_training

    recipe = context.recipe
    config, init_from = warm_started(recipe.training, recipe.warm_start, context.tracking)
    result = run_training(
        config,
        context.uri("pairs", "pairs_uri"),
        context.target("predictor"),
        context.progress,
        context.tracking,
        init_from=init_from,
    )
    return {
        "predictor_uri": result.predictor_uri,
        "run_id": result.run_id,
        "content": file_hash(f"{result.predictor_uri}/model.safetensors"),
    }


def evaluate_predictor(context: StepContext) -> Outputs:
    """Judge the predictor on styles that no training pair shows."""
    from jobs.evaluation.run import run_evaluation

    result = run_evaluation(
        context.recipe.evaluation,
        context.uri("predictor", "predictor_uri"),
        context.uri("pairs", "pairs_uri"),
        context.target("report"),
        context.progress,
    )
    return {
        "report_uri": result.report_uri,
        "page_uri": result.page_uri,
        "content": file_hash(result.report_uri),
    }


def register_version(context: StepContext) -> Outputs:
    """Register the predictor with its report, sample LoRAs and sample images."""
    from jobs.registry.register import register_version as register

    version = register(
        context.tracking,
        context.uri("predictor", "predictor_uri"),
        context.uri("report", "report_uri"),
    )
    return {"model": version.name, "version": version.version, "content": version.uri}


def check_version(context: StepContext) -> Sequence[str]:
    """Let a version become champion only if it beats the null and is no worse than the champion."""
    return _judge(context).reasons


def promote_champion(context: StepContext) -> Outputs:
    """Make the version champion if the gate lets it pass.

    Raises:
        Refused: If it does not; the champion stays.
    """
    from jobs.registry.versions import ModelRegistry

    champion = promote_judged(ModelRegistry(context.tracking), _judge(context))
    return {"model": champion.name, "version": champion.version, "content": champion.uri}


def is_registered(context: StepContext, outputs: Outputs) -> bool:
    """Whether the registry still holds the version."""
    return _registered(context, outputs) is not None


def was_promoted(context: StepContext, outputs: Outputs) -> bool:
    """Whether the version was made champion; a later rollback or champion is left alone."""
    from jobs.registry.promotion import PROMOTED_TAG

    version = _registered(context, outputs)
    return version is not None and PROMOTED_TAG in version.tags


def own_images(context: StepContext) -> object:
    """Return names, sizes and times of the user's images; None for a drawn corpus."""
    if context.recipe.pack is None:
        return None
    folder = _own_folder(context.recipe)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise InputError("pack_folder", folder, "holds no files", "name a folder with images")
    return [(str(path.relative_to(folder)), *_size_and_time(path)) for path in files]


def initial_weights(context: StepContext) -> object:
    """Return the hash of the weights that the training starts from; a registry's go by name."""
    warm_start = context.recipe.warm_start
    if warm_start is None or warm_start.startswith("models:/"):
        return warm_start
    return file_hash(f"{initial_folder(warm_start)}/model.safetensors")


def _own_folder(recipe: Recipe) -> Path:
    if recipe.pack_folder is None:
        raise InputError(
            "pack_folder",
            "missing",
            f"is required by recipe {recipe.name}",
            "name the folder with your images: --set pack_folder=FOLDER",
        )
    folder = Path(recipe.pack_folder).expanduser().resolve()
    if not folder.is_dir():
        raise InputError("pack_folder", folder, "is no folder", "name a folder with images")
    return folder


def _judge(context: StepContext) -> Judgement:
    from jobs.registry.versions import ModelRegistry

    version = context.outputs["version"]
    registry = ModelRegistry(context.tracking)
    return judge(registry, version["model"], version["version"], context.recipe.gate)


def _registered(context: StepContext, outputs: Outputs) -> "PredictorVersion | None":
    """The version that a step handed over, if the registry has it."""
    from jobs.registry.versions import ModelRegistry

    database = context.tracking.database
    if database is not None and not database.is_file():
        return None
    return ModelRegistry(context.tracking).find(outputs["model"], outputs["version"])


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _file_hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.tar")):
        yield path.name, file_hash(str(path))
