"""Thresholds on metadata: single reasons, and unknown is not good enough."""

import pytest

from jobs.mining.config import FilterConfig
from jobs.mining.filters import filter_reason


@pytest.mark.parametrize(
    ("meta", "settings", "reason"),
    [
        ({}, {}, ""),
        ({"opt_out": True}, {}, "opt_out"),
        ({"tdm_reservation": "1"}, {}, "opt_out"),
        ({"noai": "false"}, {}, ""),
        ({"opt_out": True}, {"respect_opt_out": False}, ""),
        ({"license": "CC0-1.0"}, {"licences": ("CC0-1.0",)}, ""),
        ({"licence": "proprietary"}, {"licences": ("CC0-1.0",)}, "licence_not_allowed"),
        ({}, {"licences": ("CC0-1.0",)}, "licence_not_allowed"),
        ({"aesthetic": 5.1}, {"min_aesthetic": 5}, ""),
        ({"AESTHETIC_SCORE": "4.9"}, {"min_aesthetic": 5}, "low_aesthetic"),
        ({"aesthetic": "n/a"}, {"min_aesthetic": 5}, "low_aesthetic"),
        ({"pwatermark": 0.9}, {"max_watermark": 0.5}, "watermark"),
        ({"punsafe": 0.0}, {"max_nsfw": 0.1}, ""),
        ({"punsafe": 0.2}, {"max_nsfw": 0.1}, "nsfw"),
        ({"opt_out": True, "punsafe": 1}, {"max_nsfw": 0.1}, "opt_out"),
    ],
)
def test_reasons(meta: dict, settings: dict, reason: str) -> None:
    assert filter_reason(meta, FilterConfig(**settings)) == reason
