"""What strangers' JSON says, in the columns of img2dataset and LAION."""

import pytest

from jobs.mining.metadata import Metadata, read_metadata


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, Metadata()),
        ({"artist": "A. Hand", "url": "https://x.org/1.jpg"}, Metadata(source="A. Hand")),
        ({"url": "https://www.example.org:8080/1.jpg"}, Metadata(source="example.org")),
        ({"url": "http://[broken"}, Metadata()),
        ({"artist": "", "Creator": "half \ud83d"}, Metadata(source="half \ufffd")),
        ({"LICENSE": "CC0-1.0"}, Metadata(licence="CC0-1.0")),
        ({"opt_out": True}, Metadata(opt_out=True)),
        ({"tdm-reservation": "1"}, Metadata(opt_out=True)),
        ({"noai": "false"}, Metadata()),
        ({"X-Robots-Tag": "otherbot: noindex, noai"}, Metadata(opt_out=True)),
        ({"x_robots_tag": "noindex"}, Metadata()),
        ({"headers": {"TDM-Reservation": 1}}, Metadata(opt_out=True)),
        ({"status": "success", "error_message": None}, Metadata()),
        (
            {
                "status": "failed_to_download",
                "error_message": "Use of image disallowed by X-Robots-Tag directive",
            },
            Metadata(downloaded=False, opt_out=True),
        ),
        ({"AESTHETIC_SCORE": "4.9"}, Metadata(aesthetic=4.9)),
        ({"aesthetic": "n/a", "pwatermark": None}, Metadata()),
        ({"punsafe": float("nan"), "watermark": 10**400}, Metadata()),
        ({"pwatermark": 0.25, "punsafe": 0}, Metadata(watermark=0.25, nsfw=0.0)),
        ({"artist": ["a", "b"], "status": {}, "headers": 3, "noai": []}, Metadata()),
    ],
)
def test_known_fields(meta: dict, expected: Metadata) -> None:
    assert read_metadata(meta) == expected
