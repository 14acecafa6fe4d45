"""From chunk results to the figures of report.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from jobs.evaluation.bootstrap import (
    Array,
    Estimate,
    difference_interval,
    mean_interval,
    statistic_interval,
)
from jobs.evaluation.chunk import ChunkResult
from jobs.evaluation.conditions import (
    NULL,
    REAL,
    STYLE_LORA,
    WRONG_REFS,
    budget_condition,
    i2l_condition,
)
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.measurement import Values, leakage_metric, merge
from jobs.evaluation.metrics.kernel_distance import kernel_distance
from jobs.evaluation.metrics.style_parts import PARTS
from jobs.evaluation.speed import TrainingPoint, match_training, median_seconds

Json = dict[str, Any]
REFERENCE_METRIC = "style_references"


class Summary:
    """Merged measurements of all chunks and the figures made of them."""

    def __init__(
        self, chunks: Sequence[ChunkResult], config: EvaluationConfig, *, has_oracle: bool
    ) -> None:
        self.config = config
        self.style_metrics = [f"style_{part}" for part in PARTS] if has_oracle else []
        self.style_metrics.append(REFERENCE_METRIC)
        # The one style distance that ranks budgets, styles and speed.
        self.headline = "style_overall" if has_oracle else REFERENCE_METRIC
        names = {name for chunk in chunks for name in chunk.values}
        self.values = {
            name: merge(chunk.values.get(name, {}) for chunk in chunks) for name in sorted(names)
        }
        self.losses = merge(chunk.losses for chunk in chunks)
        self.seconds = _merge_seconds(chunks)
        self.features = _merge_features(chunks)
        self.best_budget = self._find_best_budget()
        if self.best_budget is not None:
            best = budget_condition(self.best_budget)
            self.values[STYLE_LORA] = self.values[best]
            self.losses[STYLE_LORA] = self.losses[best]
            self.features[STYLE_LORA] = self.features[best]

    @property
    def i2l_conditions(self) -> list[str]:
        """The conditions under test."""
        return [i2l_condition(num_refs) for num_refs in self.config.num_refs]

    @property
    def conditions(self) -> list[str]:
        """All conditions in the order of the report; `real` are pictures, no samples."""
        order = [NULL, WRONG_REFS, *self.i2l_conditions, STYLE_LORA, REAL]
        return [name for name in order if name in self.values]

    def figures(self) -> Json:
        """All figures, ready for JSON."""
        return {
            "metrics": {name: self._metrics(name) for name in self.conditions},
            "loss_high_sigma": self._losses(),
            "closed": self._closed(),
            "closed_intervals": self._closed_intervals(),
            "leakage": self._leakage(),
            "robustness": {
                name: self._robustness(name) for name in self.conditions if name != REAL
            },
            "style_lora": self._budgets(),
            "speed": self._speed(),
        }

    def _interval(self, values: Mapping[str, Sequence[float]]) -> Estimate:
        return mean_interval(
            values, num_samples=self.config.bootstrap_num_samples, seed=self.config.seed
        )

    def _metrics(self, condition: str) -> Json:
        values = self.values[condition]
        result = {
            name: self._interval(by_style).to_json()
            for name, by_style in values.items()
            if any(by_style.values())
        }
        leaked = leakage_metric(self._num_refs(condition))
        if leaked in result:
            result["leakage"] = result[leaked]
        if condition != REAL:
            result["kid"] = self._kernel_distance(condition).to_json()
        return result

    def _num_refs(self, condition: str) -> int:
        for num_refs in self.config.num_refs:
            if condition == i2l_condition(num_refs):
                return num_refs
        return self.config.max_refs

    def _kernel_distance(self, condition: str) -> Estimate:
        samples, styles = self.features[condition]
        return kernel_distance(
            samples,
            styles,
            self.features[REAL][0],
            num_samples=self.config.bootstrap_num_samples,
            seed=self.config.seed,
        )

    def _losses(self) -> Json:
        names = [name for name in self.conditions if name in self.losses]
        result: Json = {name: self._interval(self.losses[name]).to_json() for name in names}
        for name in self.i2l_conditions:
            for other in (NULL, WRONG_REFS):
                gain = self._difference(self.losses[other], self.losses[name])
                result[f"{other}_minus_{name}"] = gain.to_json()
        return result

    def _difference(
        self, left: Mapping[str, Sequence[float]], right: Mapping[str, Sequence[float]]
    ) -> Estimate:
        return difference_interval(
            left,
            right,
            num_samples=self.config.bootstrap_num_samples,
            seed=self.config.seed,
        )

    def _closed(self) -> Json:
        return {
            part: {name: estimate["mean"] for name, estimate in row.items()}
            for part, row in self._closed_intervals().items()
        }

    def _closed_intervals(self) -> Json:
        """Share of the way from the null to the per-style LoRA, over the styles that have one."""
        if self.best_budget is None:
            return {}
        return {
            metric.removeprefix("style_"): {
                name: statistic_interval(
                    [self.values[source][metric] for source in (NULL, name, STYLE_LORA)],
                    _closed_share,
                    num_samples=self.config.bootstrap_num_samples,
                    seed=self.config.seed,
                ).to_json()
                for name in self.i2l_conditions
            }
            for metric in self.style_metrics
        }

    def _leakage(self) -> Json:
        """Leaked share of each i2l condition against the null judged by the same references."""
        result: Json = {}
        for num_refs in self.config.num_refs:
            name, metric = i2l_condition(num_refs), leakage_metric(num_refs)
            own, null = self.values[name][metric], self.values[NULL][metric]
            result[name] = {
                "share": self._interval(own).to_json(),
                "null": self._interval(null).to_json(),
                "excess": self._difference(own, null).to_json(),
            }
        return result

    def _robustness(self, condition: str) -> Json:
        worst = {
            metric: _worst_decile(self.values[condition][metric]) for metric in self.style_metrics
        }
        return {"worst_decile": worst, "failed": self._metrics_mean(condition, "failed")}

    def _metrics_mean(self, condition: str, metric: str) -> float | None:
        return _finite(self._interval(self.values[condition][metric]).mean)

    def _budgets(self) -> Json:
        """What each step budget reaches, with the best one named."""
        if self.best_budget is None:
            return {}
        names = self.values[STYLE_LORA][self.headline]
        return {
            "best_num_steps": self.best_budget,
            "styles": sorted(names),
            "budgets": [
                {
                    "num_steps": steps,
                    "seconds": median_seconds(self.seconds[budget_condition(steps)]),
                    **{
                        metric: self._metrics_mean(budget_condition(steps), metric)
                        for metric in self.style_metrics
                    },
                }
                for steps in self.config.style_lora_steps
            ],
        }

    def _speed(self) -> Json:
        """Seconds to a style; matches compare the same styles by the headline distance."""
        result: Json = {
            "metric": self.headline,
            "seconds": {name: _finite(median_seconds(self.seconds[name]))
                        for name in self.i2l_conditions},
        }  # fmt: skip
        if self.best_budget is None:
            return result
        trained = self.values[STYLE_LORA][self.headline].keys()
        curve = [
            TrainingPoint(
                steps,
                median_seconds(self.seconds[budget_condition(steps)]),
                self._mean_over(budget_condition(steps), trained),
            )
            for steps in self.config.style_lora_steps
        ]
        matches = {
            name: match_training(
                median_seconds(self.seconds[name]),
                self._mean_over(name, trained),
                self._mean_over(NULL, trained),
                curve,
            )
            for name in self.i2l_conditions
        }
        result["style_lora_curve"] = [asdict(point) for point in curve]
        result["match"] = {
            name: asdict(match) if match else None for name, match in matches.items()
        }
        return result

    def _mean_over(self, condition: str, styles: Any) -> float:
        by_style = self.values[condition][self.headline]
        return float(np.mean([value for style in styles for value in by_style[style]]))

    def _find_best_budget(self) -> int | None:
        """The budget with the least mean distance, each part in units of the null's."""
        scores: dict[int, float] = {}
        for steps in self.config.style_lora_steps:
            values = self.values.get(budget_condition(steps))
            if values:
                scores[steps] = self._relative_distance(values)
        if not scores or not all(map(math.isfinite, scores.values())):
            return None
        return min(scores, key=lambda steps: scores[steps])

    def _relative_distance(self, values: Values) -> float:
        shares = []
        for metric in self.style_metrics:
            own = {style: column for style, column in values[metric].items() if column}
            null = self.values[NULL][metric]
            if own:
                mine = np.mean([np.mean(column) for column in own.values()])
                theirs = np.mean([np.mean(null[style]) for style in own])
                shares.append(float(mine / max(theirs, 1e-9)))
        return float(np.mean(shares))


def _closed_share(null: Array, own: Array, trained: Array) -> Array:
    return (null - own) / (null - trained)


def _worst_decile(by_style: Mapping[str, Sequence[float]]) -> float | None:
    """Mean of the tenth of styles (at least one) with the largest distance."""
    means = sorted(float(np.mean(column)) for column in by_style.values() if column)
    if not means or not all(map(math.isfinite, means)):
        return None
    return float(np.mean(means[-max(1, len(means) // 10) :]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _merge_seconds(chunks: Sequence[ChunkResult]) -> dict[str, dict[str, float]]:
    merged: dict[str, dict[str, float]] = {}
    for chunk in chunks:
        for name, by_style in chunk.seconds.items():
            merged.setdefault(name, {}).update(by_style)
    return merged


def _merge_features(chunks: Sequence[ChunkResult]) -> dict[str, tuple[Array, list[str]]]:
    names = {name for chunk in chunks for name in chunk.features}
    merged = {}
    for name in names:
        parts = [chunk for chunk in chunks if name in chunk.features]
        features = torch.cat([chunk.features[name] for chunk in parts]).double().numpy()
        styles = [style for chunk in parts for style in chunk.feature_styles[name]]
        merged[name] = (features, styles)
    return merged
