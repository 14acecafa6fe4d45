"""What a sample's JSON says about its picture: origin, licence, opt-out, scores and download.

Read are the columns that img2dataset and LAION write; any other field, labels of test corpora
among them, is passed through and never looked at. img2dataset's ``sha256`` is of the file it
downloaded, which it may have scaled and compressed again: it is not compared with the member.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from jobs.surrogates import replace_surrogates

_SOURCE = ("artist", "author", "creator", "source")
_URL = ("url", "image_url", "original_url")
_LICENCE = ("licence", "license")
_OPT_OUT = ("opt_out", "opted_out", "optout", "noai", "noimageai", "tdm_reservation")
_HEADERS = ("headers", "http_headers", "response_headers")
_ROBOTS = ("x_robots_tag", "robots")
_ROBOTS_OPT_OUT = ("noai", "noimageai")
_AESTHETIC = ("aesthetic", "aesthetic_score")
_WATERMARK = ("pwatermark", "watermark")
_NSFW = ("punsafe", "nsfw")
MAX_TEXT_CHARS = 200


@dataclass(frozen=True, slots=True)
class Metadata:
    """The fields that mining reads.

    Attributes:
        source: Artist, author, creator or source, else the domain of the URL; "" unknown.
        licence: As written; "" unknown.
        opt_out: Whether the owner asks not to be trained on, by a flag or an HTTP header.
        downloaded: False where img2dataset says that the download failed.
        aesthetic: 0 to 10; None unknown.
        watermark: Probability; None unknown.
        nsfw: Probability; None unknown.
    """

    source: str = ""
    licence: str = ""
    opt_out: bool = False
    downloaded: bool = True
    aesthetic: float | None = None
    watermark: float | None = None
    nsfw: float | None = None


def read_metadata(meta: Mapping[str, Any]) -> Metadata:
    """Read the known fields; names are compared without case, "-" and "_" alike."""
    fields = {_plain_name(name): value for name, value in meta.items()}
    return Metadata(
        source=_text(fields, _SOURCE) or _domain(_text(fields, _URL)),
        licence=_text(fields, _LICENCE),
        opt_out=_opted_out(fields),
        downloaded=_text(fields, ("status",)).lower() in ("", "success"),
        aesthetic=_number(fields, _AESTHETIC),
        watermark=_number(fields, _WATERMARK),
        nsfw=_number(fields, _NSFW),
    )


def _plain_name(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _values(fields: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Any]:
    yield from (fields[name] for name in names if fields.get(name) is not None)


def _text(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first text or number that is not empty."""
    for value in _values(fields, names):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            text = " ".join(replace_surrogates(str(value)[:MAX_TEXT_CHARS]).split())
            if text:
                return text
    return ""


def _domain(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def _opted_out(fields: Mapping[str, Any]) -> bool:
    """A flag, or the headers ``X-Robots-Tag: noai`` and ``tdm-reservation: 1``.

    img2dataset refuses such downloads itself and then names the header in ``error_message``.
    """
    headers = next(_values(fields, _HEADERS), None)
    if isinstance(headers, dict):
        fields = {**{_plain_name(name): value for name, value in headers.items()}, **fields}
    if any(_is_true(value) for value in _values(fields, _OPT_OUT)):
        return True
    robots = " ".join(str(value).lower() for value in _values(fields, _ROBOTS))
    directives = robots.replace(",", " ").replace(":", " ").split()
    refused = "x-robots-tag" in _text(fields, ("error_message",)).lower()
    return refused or any(word in directives for word in _ROBOTS_OPT_OUT)


def _is_true(value: object) -> bool:
    return value is True or str(value).strip().lower() in ("1", "1.0", "true", "yes", "y")


def _number(fields: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    try:
        value = float(next(_values(fields, names), "unknown"))
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None
