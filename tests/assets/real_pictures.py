"""Collects pictures made by people, of known hand and content, from Debian packages.

    python tests/assets/real_pictures.py OUTPUT [--cache FOLDER]

A hand is one artist, tile set, icon theme or emoji font with one look. Writes
``OUTPUT/<hand>/<content>.png`` with a caption ``.txt`` that names the content only, as ``i2l pack``
takes them, and ``OUTPUT/labels.json``: hand, content, licence, package and version of each picture.
Needs Debian 12 with apt and an ``apt-get update``; the cache takes 0.6 GB of packages and 1.0 GB
unpacked. Equal package versions give equal pictures.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from PIL import Image

DEFAULT_CACHE = Path.home() / ".cache/i2l-real-pictures"
MAX_SIDE, MIN_SIDE, MAX_PER_HAND = 256, 32, 64
MARGIN = 0.06  # around a cut-out, of its longest side
MIN_CONTRAST = 8.0  # standard deviation of 8-bit grey; a flat picture has 0
MIN_DISTANCE = 3.0  # mean absolute difference of 16 x 16 RGB thumbnails, in 8-bit steps


def _names(text: str) -> dict[str, str]:
    """Read "file=content_words other=" as {"file": "content words", "other": ""}."""
    pairs = (entry.partition("=") for entry in text.split())
    return {name: (content if sign else name).replace("_", " ") for name, sign, content in pairs}


_CODES = (*range(0x1F345, 0x1F371), *range(0x1F3B7, 0x1F3BC), *range(0x1F400, 0x1F43D),
          *range(0x1F680, 0x1F69D))  # fmt: skip
EMOJI = {f"{c:X}": re.sub(" face$", "", unicodedata.name(chr(c)).lower()) for c in _CODES}
ICONS = _names("""
    accessories-calculator=calculator applications-science=flask system-file-manager=filing_cabinet
    applications-graphics=paintbrush audio-input-microphone=microphone input-gaming=game_controller
    accessories-text-editor=notepad multimedia-player=music_player system-search=magnifying_glass
    accessories-dictionary=book audio-headphones=headphones computer dialog-warning=warning_sign
    audio-x-generic=music_note battery clock image-x-generic=photograph utilities-terminal=terminal
    folder internet-web-browser=globe printer system-lock-screen=padlock video-x-generic=film_strip
    drive-harddisk=hard_disk media-floppy=floppy_disk office-calendar=calendar security-high=shield
    package-x-generic=parcel user-trash=waste_bin weather-clear-night=moon weather-few-clouds=cloud
    input-keyboard=keyboard input-tablet=pen_tablet media-flash=memory_card weather-storm=lightning
    dialog-error=stop_sign font-x-generic=letter internet-mail=envelope pda weather-snow=snowflake
    camera-photo=camera help-browser=lifebuoy scanner video-display=monitor weather-showers=rain
    camera-web=webcam face-sad=sad_face input-mouse=mouse media-optical=disc text-x-generic=page
    face-smile=smile phone user-desktop=desk user-home=house weather-clear=sun""")
BLOCKS = _names("""
    apple book bookshelf brick=brick_wall bronze_ingot=ingot cactus_side=cactus bed coral_pink=coral
    chest_front=chest coal_lump=lump_of_coal cobble=cobblestones diamond dry_shrub=shrub flint
    fern_1=fern furnace_front=furnace grass_5=grass gravel ice ladder_wood=ladder lava leaves paper
    mese_crystal=crystal papyrus=reeds sapling key sign_wood=sign snowball stick wood=planks water
    tool_steelaxe=axe tool_steelpick=pickaxe tool_steelshovel=shovel tool_steelsword=sword bread
    torch_on_floor=torch tree_top=tree_rings cotton straw tool_steelhoe=hoe wheat geranium rose
    mushroom_red=mushroom tulip viola drinking_glass=glass glass_bottle=bottle basic_flame=flame
    item_wood=door""")
WESNOTH = _names("""
    dark=dark_missile dwarve=dwarf elve=elf faerie=fairy_fire heater=shield
    magic=magic_missile merfolk=mermaid monster= morning=morning_star pick=pickaxe transport=
    rectangular=shield waterspray=jet_of_water wolve= xbowman=crossbowman""")
CLIPART = _names("""
    air_transportation=plane arctic_greyling=fish bach=composer baggage_check_in=suitcase
    bar=cocktail_glass barber_shop=scissors basebalm=baseball beethoveo=composer black_lab=dog
    blacksmiti=blacksmith coat_check=coat_hanger coffee_shop=cup cone=ice_cream_cone
    customs=customs_officer djambf=drum first_aid=cross heliport=helicopter
    hikinh=hiker hotel_information=bed immigration=passport information=question_mark
    lost_and_found=umbrella mail=envelope nursery=baby parking=letter perogies=dumplings
    rail_transportation=train restaurant=knife_and_a_fork smoking=cigarette
    tickey_purchase=ticket toilet_men=man toilet_women=woman tpt_cubf=trumpet
    water_transportation=ship""")


@dataclass(frozen=True, slots=True)
class Hand:
    """One look: where its pictures are and how their content is read."""

    name: str
    package: str
    licence: str  # of the pictures, from debian/copyright
    pattern: str  # of a path in /usr/share without ".png"; the groups are the content
    names: Mapping[str, str] = field(default_factory=dict)  # other words for a group
    only_named: bool = False  # leave out files whose last group is not in names
    magnify: int = 1  # for pixel art
    has_text: bool = False  # the content is in the .txt beside the picture


# fmt: off
_UNITS = "games/wesnoth/1.16/data/core/images"
_PHOTOS = "(?:animals/birds|animals/fish|food/fruit|food/vegetables|plants/flowers)"
HANDS = (
    Hand("noto-emoji", "fonts-noto-color-emoji", "OFL-1.1", r"glyphs/(\w+)", EMOJI),
    Hand("emojione", "ruby-gemojione", "CC-BY-SA-4.0", r".*/png/(\w+)", EMOJI, only_named=True),
    Hand("wesnoth-portraits", "wesnoth-1.16-data", "GPL-2+",
         rf"{_UNITS}/portraits/([a-z]+?)s?/([a-z-]+[a-z])", WESNOTH),
    Hand("wesnoth-sprites", "wesnoth-1.16-data", "GPL-2+",
         rf"{_UNITS}/units/([a-z]+?)s?(?:-[a-z]+)?/([a-z]+)", WESNOTH, magnify=2),
    Hand("wesnoth-attacks", "wesnoth-1.16-data", "GPL-2+",
         rf"{_UNITS}/attacks/(?!blank)([a-z]+)[\w-]*", WESNOTH),
    Hand("freeciv-buildings", "freeciv-data", "GPL-2+",
         r"games/freeciv/buildings/(?!capital)([a-z_]+?)(?:_i+)?", magnify=2),
    Hand("minetest-blocks", "minetest-data", "CC-BY-SA-3.0",
         r"games/minetest/games/minetest_game/mods/(?!bucket)\w+/textures/[a-z]+_(\w+)", BLOCKS,
         only_named=True, magnify=8),
    Hand("tuxpaint-cartoons", "tuxpaint-stamps-default", "GPL-2+",
         r"tuxpaint/stamps/town/(?:\w+/)?cartoon/(\w+)", has_text=True),
    Hand("tuxpaint-photos", "tuxpaint-stamps-default", "GPL-2+",
         rf"tuxpaint/stamps/{_PHOTOS}/([\w-]+)", has_text=True),
    Hand("aiga-signs", "openclipart-png", "public domain",
         r"openclipart/png/transportation/aiga-symbols/aiga_(?!no_|\w+_(?:arrow|up|down)_)(\w+)_",
         CLIPART),
    Hand("ganson-clipart", "openclipart-png", "public domain",
         r"openclipart/png/[\w/]+/(?!\w*_bw_|led_|canada|hand|sap)([a-z_]+?)\d*_+ganson\d?",
         CLIPART),
    Hand("oxygen-icons", "oxygen-icon-theme", "LGPL-3+",
         r"icons/oxygen/base/128x128/\w+/([\w-]+)", ICONS, only_named=True),
    Hand("gnome-icons", "gnome-icon-theme", "GPL-2+",
         r"icons/gnome/256x256/\w+/([\w-]+)", ICONS, only_named=True),
    Hand("faenza-icons", "faenza-icon-theme", "GPL-3+",
         r"icons/Faenza/\w+/96/([\w-]+)", ICONS, only_named=True),
    Hand("moka-icons", "moka-icon-theme", "CC-BY-SA-4.0 or GPL-3+",
         r"icons/Moka/256x256/\w+/([\w-]+)", ICONS, only_named=True),
)
# fmt: on


class MissingError(Exception):
    """A tool, package or file that this needs; the message says what to do."""


def _command(*arguments: str, folder: Path) -> str:
    try:
        done = subprocess.run(arguments, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MissingError(f"{arguments[0]} is not installed; run this on Debian 12") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingError(f"{' '.join(arguments)}: {reason}; try apt-get update") from error
    return done.stdout.strip()


def unpack(package: str, cache: Path) -> tuple[Path, str]:
    """Download and extract ``package`` if the cache lacks it; its /usr/share and version."""
    if not list(cache.glob(f"{package}_*.deb")):
        _command("apt-get", "download", package, folder=cache)
    archive = max(cache.glob(f"{package}_*.deb"))
    folder, partial = cache / archive.stem, cache / "partial"
    if not folder.exists():
        shutil.rmtree(partial, ignore_errors=True)
        _command("dpkg-deb", "-x", str(archive), str(partial), folder=cache)
        for font in partial.rglob("NotoColorEmoji.ttf"):
            _write_glyphs(font, partial / "usr/share/glyphs")
        partial.rename(folder)
    return folder / "usr/share", _command("dpkg-deb", "-f", str(archive), "Version", folder=cache)


def _write_glyphs(font_path: Path, folder: Path) -> None:
    """Write the PNG glyphs of a bitmap font as ``<code point>.png``."""
    folder.mkdir()
    with TTFont(font_path) as font:
        (glyphs,) = font["CBDT"].strikeData
        names = font.getBestCmap()
        for code in EMOJI:
            (folder / f"{code}.png").write_bytes(glyphs[names[int(code, 16)]].imageData)


def contents(hand: Hand, folder: Path) -> dict[str, Path]:
    """The first file of each content, at most MAX_PER_HAND, spread over the sorted contents."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.png")):
        match = re.fullmatch(hand.pattern, path.relative_to(folder).with_suffix("").as_posix())
        if match and (not hand.only_named or match.groups()[-1] in hand.names):
            text = path.with_suffix(".txt")
            content = _described(text) if hand.has_text else _spoken(match, hand)
            if content:
                found.setdefault(content, path)
    kept = sorted(found)
    step = max(1.0, len(kept) / MAX_PER_HAND)
    return {kept[int(i * step)]: found[kept[int(i * step)]] for i in range(int(len(kept) / step))}


def _spoken(match: re.Match[str], hand: Hand) -> str:
    words = [hand.names.get(group, re.sub("[_-]+", " ", group)) for group in match.groups()]
    return re.sub(r"\b(\w+) \1\b", r"\1", " ".join(filter(None, words)))


def _described(path: Path) -> str:
    """The first line of a stamp's text, "An owl." → "owl"; "" for one that names no thing."""
    line = path.read_text(encoding="utf-8").splitlines()[0].split("(")[0]
    match = re.fullmatch(r"(?:an?|the|some) ([\w -]+?)\W*", line.lower())
    return match[1] if match else ""


def caption(content: str) -> str:
    """ "owl" → "an owl"; plurals stand without an article."""
    article = "an" if re.match("(?!uni|eu)[aeiou]", content) else "a"
    return content if re.search("[^usi]s$", content) else f"{article} {content}"


def draw(path: Path, magnify: int) -> Image.Image | None:
    """The picture in RGB, a cut-out centred in a square; None where there is little to see."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    alpha = image.getchannel("A")
    box = alpha.point(lambda value: 255 * (value > 16)).getbbox()
    if box is None or min(image.size) * magnify < MIN_SIDE:
        return None
    if np.asarray(alpha).min() < 255:
        cut = image.crop(box)
        side = round(max(cut.size) * (1 + 2 * MARGIN))
        image = Image.new("RGBA", (side, side), "white")
        image.alpha_composite(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    size = (image.width * magnify, image.height * magnify)
    picture = image.resize(size, Image.Resampling.NEAREST).convert("RGB")
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    contrast = float(np.asarray(picture.convert("L"), np.float32).std())
    return picture if min(picture.size) >= MIN_SIDE and contrast >= MIN_CONTRAST else None


def pictures(hand: Hand, folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """Content and picture of ``hand``, in order, without near-duplicates."""
    seen: list[np.ndarray] = []
    for content, path in contents(hand, folder).items():
        picture = draw(path, hand.magnify)
        if picture is None:
            continue
        thumbnail = np.asarray(picture.resize((16, 16), Image.Resampling.BOX), np.float32)
        if all(np.abs(thumbnail - other).mean() >= MIN_DISTANCE for other in seen):
            seen.append(thumbnail)
            yield content, picture


def collect(output: Path, cache: Path) -> int:
    """Write the pictures of all hands and their labels; the number of pictures.

    Raises:
        MissingError: apt, dpkg or a package is not to be had.
    """
    cache = cache.expanduser().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    labels: dict[str, dict[str, str]] = {}
    for hand in HANDS:
        folder, version = unpack(hand.package, cache)
        source = {"licence": hand.licence, "package": hand.package, "version": version}
        shutil.rmtree(output / hand.name, ignore_errors=True)
        (output / hand.name).mkdir(parents=True)
        before = len(labels)
        for content, picture in pictures(hand, folder):
            key = f"{hand.name}/{re.sub('[^a-z0-9]+', '_', content)}"
            picture.save(output / f"{key}.png")
            (output / f"{key}.txt").write_text(caption(content) + "\n", encoding="utf-8")
            labels[key] = {"hand": hand.name, "content": content, **source}
        print(f"{hand.name}: {len(labels) - before} from {hand.package} {version}", flush=True)
    (output / "labels.json").write_text(json.dumps(labels, indent=1, sort_keys=True) + "\n")
    return len(labels)


def main() -> int:
    """Command line; exit status 2 where apt or a package is missing."""
    parser = argparse.ArgumentParser(description="Pictures by people, from Debian packages.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    arguments = parser.parse_args()
    try:
        num_pictures = collect(arguments.output, arguments.cache)
    except MissingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{num_pictures} pictures of {len(HANDS)} hands in {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
