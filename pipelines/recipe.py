"""Recipes: all settings of a workflow in one YAML file, which may extend another one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from i2l_model.errors import InputError
from jobs.corpus.picture_sample import PackConfig
from jobs.corpus.stylegrid import CorpusConfig
from jobs.evaluation.config import EvaluationConfig, GateConfig
from jobs.mining.config import MiningConfig
from jobs.registry.tracking import TrackingConfig
from jobs.training.config import TrainingConfig
from pipelines.acceptance import AcceptanceConfig
from pipelines.overrides import apply_overrides, validation_problem

RECIPE_FOLDER = Path(__file__).parent / "recipes"


class Recipe(BaseModel):
    """Everything a workflow run needs to know.

    The images come from ``corpus`` (drawn) or from ``pack`` and ``pack_folder`` (the user's own).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="lower-case name of the recipe")
    description: str = Field(description="one sentence for the list of recipes")
    corpus: CorpusConfig | None = Field(None, description="labelled grid to draw")
    pack: PackConfig | None = Field(None, description="how a folder of images is packed")
    pack_folder: str | None = Field(None, description="folder of images to pack")
    mining: MiningConfig = Field(description="how pairs are found")
    acceptance: AcceptanceConfig = Field(
        default_factory=AcceptanceConfig, description="what mined pairs must reach"
    )
    training: TrainingConfig = Field(description="predictor and its training")
    warm_start: str | None = Field(
        None, description="predictor folder, models:/ URI or shipped predictor to start from"
    )
    evaluation: EvaluationConfig = Field(description="how the predictor is judged")
    gate: GateConfig = Field(description="bounds a version must keep to become champion")
    tracking: TrackingConfig = Field(
        default_factory=TrackingConfig, description="where runs and versions are recorded"
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.corpus is None) == (self.pack is None):
            raise ValueError("set exactly one of corpus and pack, the source of the images")
        return self

    @model_validator(mode="after")
    def _check_held_out_contents(self) -> Self:
        for name in self.evaluation.held_out_contents:
            if self.corpus is not None and name not in self.corpus.held_out_contents:
                raise ValueError(
                    f"evaluation.held_out_contents ({name}) must be in corpus.held_out_contents; "
                    "add it there, or leave it out here"
                )
        return self

    @model_validator(mode="after")
    def _check_gate(self) -> Self:
        if self.evaluation.num_styles < self.gate.min_num_styles:
            raise ValueError(
                f"evaluation.num_styles ({self.evaluation.num_styles}) must be >= "
                f"gate.min_num_styles ({self.gate.min_num_styles}); change either"
            )
        if self.gate.min_closed and not self.evaluation.style_lora_num_styles:
            raise ValueError(
                "evaluation.style_lora_num_styles (0) must be >= 1 for gate.min_closed, which "
                "compares with per-style LoRAs; raise it, or leave min_closed out"
            )
        return self


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and change it.

    A recipe with ``extends: NAME_OR_PATH`` changes that recipe: sections are merged key by key,
    any other value, lists too, replaces the base's. A path is relative to the file that names it.

    Args:
        name_or_path: Name of a shipped recipe, or path of a YAML file.
        overrides: Items "dotted.key=value".

    Raises:
        InputError: If there is no such recipe, a setting is unknown or wrong, or a recipe extends
            itself.
    """
    path = _find(name_or_path)
    settings = apply_overrides(_read_whole(path), overrides)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise validation_problem(error, Recipe, str(path)) from None


def dump_yaml(settings: BaseModel | dict[str, Any]) -> str:
    """Return settings as YAML, in the order they are declared."""
    data = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))


def _find(name_or_path: str, folder: Path = Path(), field: str = "--recipe") -> Path:
    path = Path(name_or_path).expanduser()
    if path.suffix in {".yaml", ".yml"} or path.parent != Path():
        path = folder / path
        if path.is_file():
            return path
        raise InputError(field, name_or_path, "is no file", "check the path")
    shipped = RECIPE_FOLDER / f"{name_or_path}.yaml"
    if not shipped.is_file():
        known = ", ".join(recipe_names())
        raise InputError(
            field, name_or_path, "is unknown", f"use one of {known}, or a path to a YAML file"
        )
    return shipped


def _read_whole(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Settings of a recipe, with those of the recipes it extends beneath."""
    settings = _read(path)
    base = settings.pop("extends", None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise InputError("extends", base, f"is no name in {path}", "name one recipe")
    base_path = _find(base, path.parent, "extends")
    seen = (*extended_by, path.resolve())
    if base_path.resolve() in seen:
        raise InputError("extends", base, f"leads {path} back to itself", "name another recipe")
    return _merged(_read_whole(base_path, seen), settings)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = _merged(merged[key], value)
        merged[key] = value
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise InputError("--recipe", path, f"is no YAML: {problem}", "correct the file") from None
    except OSError as error:
        raise InputError(
            "--recipe", path, f"cannot be read: {error.strerror}", "check it"
        ) from None
    if not isinstance(settings, dict):
        raise InputError("--recipe", path, "holds no settings", "write key: value lines")
    return settings
