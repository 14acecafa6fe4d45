"""Words that speak of a picture's style rather than of what it shows.

Captions are cleaned with these lists so that a prompt names content only and the style has to come
from the references. A word belongs here if it describes medium, technique, rendering or finish.
Colours count as style only in trailing phrases ("a fish, blue on grey") and before "background":
in "a red car" the colour belongs to the car. Add a corpus' own words with
``captions.style_words`` in the mining configuration.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PICTURE_NOUNS = _words(
    """
    art artwork cartoon collage comic depiction design doodle drawing engraving etching graphic
    icon illustration image landscape logo miniature mosaic mural painting panel photo photograph
    picture portrait poster print render rendering scene scribble shot sketch snapshot sticker
    view wallpaper
    """
)
"""Nouns that name the picture itself: "a painting of a dog" shows a dog."""

PICTURE_ADJECTIVES = _words(
    "and beautiful book close-up closeup comic line old pen screen simple wash"
)
"""Words that may stand before a picture noun in an opener, and mean content elsewhere."""

STYLE_WORDS = _words(
    """
    3d abstract acrylic aesthetic airbrushed anime aquarelle art-deco art-nouveau baroque bauhaus
    bokeh bright brushed brushstroke brushstrokes cartoonish chalk charcoal checkered chiaroscuro
    chibi cinematic cinemagraph clay colorful colourful cel-shaded claymation crayon cross-hatched
    cross-hatching crosshatched crosshatching cubism cubist cyberpunk detailed digital dotted
    embossed embroidered expressionism expressionist fauvism fauvist film flat fresco futuristic
    glitch glow gouache gradient grainy graffiti grayscale greyscale grunge halftone hand-drawn
    hatched hatching hdr impasto impressionism impressionist impressionistic ink isometric kawaii
    knitted line-art lineart linework linocut lithograph
    low-poly lowpoly manga matte minimal minimalist minimalistic modern monochrome mottled neon
    noir oil origami ornate outline outlined painted painterly papercut paper-cut pastel pencil
    photo-realistic photographic photorealistic pixel pixelart pixelated pixel-art pointillism
    pointillist pop-art psychedelic realistic renaissance retro risograph rococo rough rustic
    sepia shaded sketched sketchy smooth soft spotted stained-glass steampunk stencil stippled
    stippling striped studio stylised stylized sumi-e surreal surrealism surrealist
    synthwave tempera textured tinted ukiyo-e unreal vaporwave vector vibrant vintage vivid
    voxel watercolor watercolour watercolors watercolours wireframe woodblock woodcut
    """
)
"""Adjectives and nouns of medium, technique and finish; dropped wherever they stand."""

COLOUR_WORDS = _words(
    """
    amber aqua azure beige black blue bronze brown burgundy colored coloured colors colours copper
    coral cream crimson cyan dark deep fuchsia gold golden gray green grey indigo ivory lavender
    lemon light lilac lime magenta maroon mint mustard navy olive orange palette pale peach pink
    plum purple red rose rust salmon sand scarlet silver tan teal tone tones turquoise violet
    white yellow
    """
)
"""Dropped in phrases that hold nothing else than style, and before "background"."""

STYLE_FILLERS = _words(
    """
    4k 8k a an and art artstation award-winning background backdrop best bold by clean color colour
    concept edges engine fine from hd highly high in intricate is it its life lighting lines
    loose made masterpiece mode no octane of on over quality resolution still strokes style
    styled texture textures the theme thick thin trending uhd ultra using very winning with
    """
)
"""Words that may stand in a style phrase without making it content."""

OPENERS = ("there is", "there are", "this is", "these are", "here is", "it is", "it's")
"""Beginnings that carry nothing."""

DETERMINERS = _words(
    """
    a an another any both each every few her his its many my one our several some that the their
    these this those two three four five six seven eight nine ten your
    """
)
"""Left out of the head."""

CONTAINERS = _words("array bunch couple group lot pair piece row series set variety")
"""In "a group of birds" the head is what follows."""

PHRASE_BREAKS = _words(
    """
    about above across after against along alongside among and are around as at atop background
    before behind below beneath beside between beyond but by can does during for from has have
    drawn holds in inside into is made near next of off on onto or out outside over past rendered
    sits stands that
    through to toward towards under underneath upon was wears were where which while who with
    within without
    """
)
"""The first noun phrase of a caption ends before one of these."""
