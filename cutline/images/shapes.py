"""A small data set that needs no download: two coloured shapes, one above or to the left of the other, and a caption.

Its test split holds combinations of shapes that training never shows, so a model scores there only by having learnt
what the words mean.
"""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

from PIL import Image, ImageDraw

from cutline.core.files import write_atomically

COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 210),
    "yellow": (240, 205, 30),
    "purple": (140, 60, 180),
    "orange": (250, 130, 20),
}
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("above", "to the left of")

#: Colour and shape of the first, relation, colour and shape of the second.
Scene = tuple[str, str, str, str, str]

#: The shapes' radius as a share of the side: smaller ones are much harder to learn.
RADIUS = (0.16, 0.21)


def scenes() -> list[Scene]:
    """All 612 combinations; the two shapes of one are never alike."""
    things = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return [(*one, relation, *other) for one in things for relation in RELATIONS for other in things if one != other]


def held_out(seed: int = 0, share: float = 0.2) -> tuple[list[Scene], list[Scene]]:
    """Divides the combinations: those to learn from, and the share that only the test shows."""
    order = scenes()
    random.Random(f"held out {seed}").shuffle(order)
    number = round(share * len(order))
    return order[number:], order[:number]


def caption(scene: Scene) -> str:
    """For example "a red circle above a blue square"."""
    one, one_shape, relation, other, other_shape = scene
    return f"{_article(one)} {one_shape} {relation} {_article(other)} {other_shape}"


def picture(scene: Scene, size_px: int, chance: random.Random) -> Image.Image:
    """Draws a combination with chance places, sizes and background.

    Returns:
        An RGB picture of size_px × size_px.
    """
    one, one_shape, relation, other, other_shape = scene
    image = Image.new("RGB", (size_px, size_px), tuple(chance.randint(200, 255) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for colour, shape, along in ((one, one_shape, 0.26), (other, other_shape, 0.74)):
        x, y = (0.5, along) if relation == "above" else (along, 0.5)
        centre = ((x + chance.uniform(-0.05, 0.05)) * size_px, (y + chance.uniform(-0.05, 0.05)) * size_px)
        _draw(pen, shape, COLOURS[colour], centre, chance.uniform(*RADIUS) * size_px)
    return image


def draw(
    folder: str | Path, train: int = 2000, val: int = 200, test: int = 200, size_px: int = 48, seed: int = 0
) -> Path:
    """Writes pictures and ``captions.csv`` (image, caption, split): a source like any user's.

    Train and val show the same combinations in different pictures, test only held-out ones.

    Args:
        train, val, test: number of pictures. Every eighth is a PNG, the others are JPEGs.
        size_px: side of the pictures, in px.
        seed: the same one gives the same bytes.

    Returns:
        The path of ``captions.csv``.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    seen, unseen = held_out(seed)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "caption", "split"])
    number = 0
    for split, count, choice in (("train", train, seen), ("val", val, seen), ("test", test, unseen)):
        chance = random.Random(f"{seed} {split}")  # more of one split changes nothing in another
        for index in range(count):
            # go round all combinations, in a new order each time: none is left out by chance
            if index % len(choice) == 0:
                order = chance.sample(choice, len(choice))
            scene = order[index % len(choice)]
            number += 1
            name = f"{number:06d}.{'png' if index % 8 == 7 else 'jpg'}"
            # 4:4:4 and high quality: chroma blocks of 16 px would smear colours at this size
            picture(scene, size_px, chance).save(folder / "images" / name, quality=95, subsampling=0)
            rows.writerow([name, caption(scene), split])
    path = folder / "captions.csv"
    write_atomically(path, table.getvalue())  # last: a table without its pictures is never seen
    return path


def _draw(
    pen: ImageDraw.ImageDraw, shape: str, colour: tuple[int, int, int], centre: tuple[float, float], radius: float
) -> None:
    x, y = centre
    if shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    elif shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _article(colour: str) -> str:
    return f"an {colour}" if colour[0] in "aeiou" else f"a {colour}"
