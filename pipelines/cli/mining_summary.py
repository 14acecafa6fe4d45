"""What ``i2l mine`` prints at its end: the report's main numbers in a few lines."""

from collections.abc import Mapping
from typing import Any

from jobs.mining.drop_reasons import DROP_TEXTS

_MAX_REASONS = 4


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """The lines for the content of ``report.json``."""
    counts, precision = report["counts"], report["cut"]["precision"]
    splits = ", ".join(f"{split['pairs']:,} {name}" for name, split in report["splits"].items())
    lines = [
        f"{counts['pairs']:,} pairs ({splits}) of {report['styles']['with_pairs']:,} styles",
        f"{counts['images']:,} images read, {counts['images_kept']:,} kept, "
        f"{counts['images_used']:,} in pairs",
    ]
    lines.append(
        f"{100 * precision:.1f} % of the pairs are right by estimate, "
        f"{100 * report['cut']['coverage']:.1f} % of the images keep a link"
    )
    drops = list(report["drops"].items())
    shown = [f"{DROP_TEXTS.get(reason, reason)}: {n:,}" for reason, n in drops[:_MAX_REASONS]]
    if shown:
        rest = sum(n for _, n in drops[_MAX_REASONS:])
        lines.append(
            f"dropped: {'; '.join(shown)}" + (f"; other reasons: {rest:,}" if rest else "")
        )
    if report["input"]["num_damaged"]:
        damaged, shards = report["input"]["num_damaged"], report["input"]["num_shards"]
        lines.append(f"damaged: {damaged:,} of {shards:,} shards, see the report")
    return lines
