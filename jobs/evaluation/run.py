"""The evaluation job: held-out styles -> chunks -> report.json, report page, sample files."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs import storage
from jobs.evaluation.chunk import ChunkPlan, ChunkResult
from jobs.evaluation.chunk_files import clear_outputs, read_chunk
from jobs.evaluation.config import EvaluationConfig
from jobs.evaluation.held_out import HeldOutSet, HeldOutStyle, choose_held_out
from jobs.evaluation.report import write_report
from jobs.evaluation.schema import PAGE_FOLDER, REPORT_FILE, REPORT_SCHEMA
from jobs.evaluation.summary import Summary
from jobs.evaluation.workers import Work, run_chunks
from jobs.predictor_folder import check_predictor, read_provenance, read_record
from jobs.progress import NullProgress, Progress
from jobs.provenance import (
    config_hash,
    environment_versions,
    git_sha,
    json_hash,
    pairs_hash,
    predictor_hash,
    without_execution,
)

logger = logging.getLogger(__name__)

STAGE = "evaluate"
# How the work is spread does not change what is measured.


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Where the report lies, and what it says."""

    report_uri: str
    page_uri: str
    report: dict[str, Any]


def run_evaluation(
    config: EvaluationConfig,
    predictor_uri: str,
    pairs_uri: str,
    output_uri: str,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Evaluate a predictor on styles that it was not trained on.

    Finished chunks of the same inputs are kept, so a killed run goes on where it stopped and a
    finished one returns at once. What an evaluation of other inputs left in the folder is removed.

    Args:
        config: What to measure.
        predictor_uri: Predictor folder, local or S3.
        pairs_uri: Output folder of the mining job.
        output_uri: Folder for report.json, report/, samples/ and chunks/.
        progress: Told about finished chunks.

    Raises:
        InputError: If the predictor or the test split is missing, or too few styles are held out.
    """
    progress = progress or NullProgress()
    predictor_uri, pairs_uri, output_uri = (
        storage.absolute_uri(uri) for uri in (predictor_uri, pairs_uri, output_uri)
    )
    predictor = _describe_predictor(predictor_uri)
    held_out = choose_held_out(pairs_uri, config)
    inputs_hash = _inputs_hash(config, predictor["hash"], held_out)
    report_uri = storage.join_uri(output_uri, REPORT_FILE)
    page_uri = storage.join_uri(output_uri, PAGE_FOLDER, "index.html")
    hash_of_pairs = pairs_hash(pairs_uri)
    described = _describe_held_out(held_out, predictor, hash_of_pairs)
    finished = _finished_report(report_uri, inputs_hash)
    # Chunks do not depend on where the predictor comes from; the gate does.
    if finished is not None and finished["held_out"] == described:
        logger.info("%s is complete for these inputs, nothing to do", report_uri)
        return EvaluationResult(report_uri, page_uri, finished)

    plans = plan_chunks(held_out.styles, config)
    chunks = _evaluate(plans, config, predictor_uri, output_uri, held_out, inputs_hash, progress)
    summary = Summary(chunks, config, has_oracle=held_out.has_oracle)
    report = {
        "schema": REPORT_SCHEMA,
        "predictor": predictor,
        "backbone": predictor["config"]["backbone"],
        "num_styles": len(held_out.styles),
        "num_refs": list(config.num_refs),
        "held_out": described,
        "prompt_reader": chunks[0].reader,
        **summary.figures(),
        "inputs_hash": inputs_hash,
        "provenance": _provenance(config, pairs_uri, hash_of_pairs),
    }
    write_report(output_uri, report, chunks, plans, config)
    # Last: the report marks the evaluation as complete.
    storage.write_bytes(report_uri, json.dumps(report, indent=1, allow_nan=False).encode())
    return EvaluationResult(report_uri, page_uri, report)


def plan_chunks(styles: Sequence[HeldOutStyle], config: EvaluationConfig) -> list[ChunkPlan]:
    """Deal the styles out, so that every chunk gets its share of the costly trained LoRAs."""
    num_chunks = -(-len(styles) // config.styles_per_chunk)
    names = [style.name for style in styles]
    return [
        ChunkPlan(
            index=index,
            styles=tuple(styles[index::num_chunks]),
            style_lora=frozenset(names[: config.style_lora_num_styles]),
            pictured=frozenset(names[: config.report_num_styles]),
            sampled=frozenset(names[: config.sample_num_styles]),
        )
        for index in range(num_chunks)
    ]


def _evaluate(
    plans: Sequence[ChunkPlan],
    config: EvaluationConfig,
    predictor_uri: str,
    output_uri: str,
    held_out: HeldOutSet,
    inputs_hash: str,
    progress: Progress,
) -> list[ChunkResult]:
    kept = {
        plan.index: read_chunk(output_uri, plan.index, inputs_hash=inputs_hash) for plan in plans
    }
    missing = [plan for plan in plans if kept[plan.index] is None]
    num_kept = len(plans) - len(missing)
    if num_kept:
        logger.info("kept %d of %d chunks of an earlier run", num_kept, len(plans))
    else:  # samples of another predictor must not be registered with this one
        clear_outputs(output_uri)
    progress.update(STAGE, num_kept, len(plans), "chunks of styles")
    run_chunks(
        missing,
        Work(config, predictor_uri, output_uri, held_out.subjects, inputs_hash),
        lambda number: progress.update(STAGE, num_kept + number, len(plans), "chunks of styles"),
    )
    results = []
    for plan in plans:
        result = kept[plan.index] or read_chunk(output_uri, plan.index, inputs_hash=inputs_hash)
        assert result is not None, f"chunk {plan.index} was evaluated but is not complete"
        results.append(result)
    return results


def _describe_predictor(predictor_uri: str) -> dict[str, Any]:
    check_predictor(predictor_uri, predictor_uri)
    return {
        "uri": predictor_uri,
        "hash": predictor_hash(predictor_uri),
        "config": read_record(predictor_uri, "config.json", predictor_uri),
        "provenance": read_provenance(predictor_uri, predictor_uri),
    }


def _inputs_hash(config: EvaluationConfig, predictor_hash: str, held_out: HeldOutSet) -> str:
    settings = without_execution(config.model_dump(mode="json"))
    return json_hash([REPORT_SCHEMA, settings, predictor_hash, held_out.content_hash])


def _finished_report(report_uri: str, inputs_hash: str) -> dict[str, Any] | None:
    if not storage.exists(report_uri):
        return None
    report: dict[str, Any] = json.loads(storage.read_bytes(report_uri))
    return report if report.get("inputs_hash") == inputs_hash else None


def _describe_held_out(
    held_out: HeldOutSet, predictor: dict[str, Any], hash_of_pairs: str
) -> dict[str, Any]:
    trained_on = (predictor["provenance"] or {}).get("pairs_hash")
    return {
        # The split keeps these styles from the training only if it was on the same pairs.
        "pairs_of_training": trained_on == hash_of_pairs,
        "content_hash": held_out.content_hash,
        "has_oracle": held_out.has_oracle,
        "num_shared_keys": held_out.num_shared_keys,
        "num_seen_styles": held_out.num_seen_styles,
        "num_short_styles": held_out.num_short_styles,
        "styles": [
            {
                "name": style.name,
                "references": [image.subject for image in style.references],
                "prompts": [prompt.prompt for prompt in style.prompts],
            }
            for style in held_out.styles
        ],
    }


def _provenance(config: EvaluationConfig, pairs_uri: str, hash_of_pairs: str) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash(config),
        "pairs": pairs_uri,
        "pairs_hash": hash_of_pairs,
        "git_sha": git_sha(),
        "versions": environment_versions(),
    }
