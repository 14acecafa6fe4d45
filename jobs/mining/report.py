"""The mining report: ``report.json`` for programs and one self-contained page for people."""

import json
from typing import Any

from i2l_model.errors import InputError
from jobs import storage
from jobs.mining.examples import Examples
from jobs.mining.gallery import PictureSource, fill_gallery
from jobs.mining.report_numbers import ReportSource, summarise
from jobs.mining.report_page import render_page

JSON_NAME, PAGE_NAME = "report.json", "index.html"


def write_report(
    uri: str, source: ReportSource, examples: Examples, pictures: PictureSource
) -> None:
    """Write ``report.json`` and ``index.html`` into the folder ``uri``; equal runs, equal bytes."""
    summary = summarise(source)
    text = json.dumps(summary, indent=2, allow_nan=False)
    storage.write_bytes(storage.join_uri(uri, JSON_NAME), text.encode())
    gallery = fill_gallery(examples, source.mined, source.drops, pictures)
    storage.write_bytes(storage.join_uri(uri, PAGE_NAME), render_page(summary, gallery).encode())


def read_report(page_uri: str) -> dict[str, Any]:
    """The numbers behind a report's page.

    Raises:
        InputError: If they are missing or no JSON object.
    """
    uri = storage.join_uri(page_uri.rpartition("/")[0], JSON_NAME)
    try:
        value = json.loads(storage.read_bytes(uri))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError("report", uri, "is no mining report", "mine again into an empty folder")
    return value
