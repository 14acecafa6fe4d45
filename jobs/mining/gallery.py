"""Fills the report's examples with pictures and captions."""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from i2l_model.images import decode_image
from jobs.mining.drop_reasons import DROP_TEXTS, UNDECODABLE
from jobs.mining.examples import Examples, LinkGroup
from jobs.mining.mined import MinedPairs
from jobs.mining.report_page import (
    Gallery,
    Picture,
    ShownDrop,
    ShownLink,
    ShownLinks,
    ShownPair,
    ShownStyle,
    plain_text,
)

THUMBNAIL_SIDE = 96
MAX_THUMBNAIL_BYTES = 6_000  # about 330 of them stay below 3 MB as text
_QUALITIES = (82, 60, 40, 20)


@dataclass(frozen=True, slots=True)
class PictureSource:
    """Where pictures and texts of sample rows come from.

    Attributes:
        jpeg: Row → the image as JPEG.
        caption: Row → caption.
        key: Row → key.
    """

    jpeg: Callable[[int], bytes]
    caption: Mapping[int, str]
    key: Mapping[int, str]

    def picture(self, row: int) -> Picture:
        """The thumbnail of a row with its caption."""
        data = thumbnail_bytes(decode_image(self.jpeg(row)))
        text = plain_text(self.caption.get(row, ""))
        return Picture(f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", text)


def thumbnail_bytes(image: Image.Image) -> bytes:
    """A small JPEG of at most ``MAX_THUMBNAIL_BYTES``, coarser where it must be."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_THUMBNAIL_BYTES:
            break
    return buffer.getvalue()


def fill_gallery(
    examples: Examples, mined: MinedPairs, drops: Mapping[str, int], source: PictureSource
) -> Gallery:
    """Everything that the page shows as a picture."""

    def picture(image: int) -> Picture:
        return source.picture(int(mined.rows[image]))

    pairs = [mined.selection.pairs[number] for number in examples.pairs]
    return Gallery(
        pairs=[
            ShownPair(
                refs=[picture(ref) for ref in pair.refs],
                target=picture(pair.target),
                split=mined.splits[mined.names[pair.style]],
                style_similarity=pair.style_similarity,
                content_similarity=pair.content_similarity,
            )
            for pair in pairs
        ],
        drops=[_drop(reason, count, examples, source) for reason, count in drops.items()],
        links=[_links(group, picture) for group in examples.links],
        styles=[
            ShownStyle(
                name=mined.names[number],
                split=mined.splits.get(mined.names[number], "no pairs"),
                size=len(mined.styles.members[number]),
                pictures=[picture(image) for image in members],
            )
            for number, members in examples.styles
        ],
    )


def _drop(reason: str, count: int, examples: Examples, source: PictureSource) -> ShownDrop:
    rows = examples.drops.get(reason, ())
    text = DROP_TEXTS.get(reason, "")
    if reason in UNDECODABLE:
        keys = [plain_text(source.key.get(row, "")) for row in rows]
        return ShownDrop(reason, count, text, [], [key for key in keys if key])
    return ShownDrop(reason, count, text, [source.picture(row) for row in rows], [])


def _links(group: LinkGroup, picture: Callable[[int], Picture]) -> ShownLinks:
    scores = [f"{score:.3f}" for score in group.scores] or [""] * len(group.links)
    links = [
        ShownLink([picture(image) for image in link], score)
        for link, score in zip(group.links, scores, strict=True)
    ]
    return ShownLinks(group.title, group.explanation, group.count, links)
