"""One drawn face: its image, the class of each pixel, and the boxes of eyes, nose and mouth, all of them exact.

It is painted from back to front. Not included: details that need photographs, such as wrinkles and beards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from study.errors import InputError
from trainables.data.arrays.face_parsing import CLASSES
from trainables.data.arrays.splits import Pixels
from trainables.data.synthetic.face_canvas import Canvas, Floats, Person, make_ellipse, make_rectangle
from trainables.data.synthetic.face_features import draw_features

SKINS = np.array([[255, 222, 200], [236, 190, 160], [198, 146, 112], [141, 95, 68], [88, 58, 44]])
HAIRS = np.array([[28, 22, 20], [66, 44, 30], [120, 84, 52], [196, 160, 104], [128, 128, 130], [122, 52, 30]])
FRAMES = np.array([[22, 22, 24], [110, 66, 34], [150, 150, 156], [120, 24, 34]])
METALS = np.array([[226, 190, 90], [205, 205, 212], [190, 60, 70]])

HATS, BALD, BLURRED = 0.12, 0.08, 0.3
"""Shares of faces with a hat, of short-haired heads that are bald, and of images out of focus."""


@dataclass(frozen=True, eq=False)
class DrawnFace:
    """An image with its ground truth."""

    image: Pixels
    """(H, W, 3)."""
    labels: Pixels
    """(H, W), indices into CLASSES."""
    boxes: Floats
    """(4, 4): left, top, right and bottom of each of COMPONENTS, including parts hidden by glasses or hair. The first
    pixel extends from 0 to 1."""


@dataclass(frozen=True)
class Looks:
    """Proportions and accessories of faces: true to life, or such that small images still show all classes.

    Raises InputError for an enlargement outside [1, 2] or a probability outside [0, 1].
    """

    enlarged: float = 1.0
    """Size of eyes, brows, lips and accessories relative to life."""
    glasses: float = 0.2
    """Probability, as are `earrings` and `necklace`."""
    earrings: float = 0.3
    necklace: float = 0.25

    def __post_init__(self) -> None:
        if not (1 <= self.enlarged <= 2 and all(0 <= p <= 1 for p in (self.glasses, self.earrings, self.necklace))):
            raise InputError(f"{self}: allowed are enlarged from 1 to 2, and probabilities from 0 to 1")


AT_64_PIXELS = Looks(enlarged=1.7, glasses=0.5, earrings=0.5, necklace=0.5)
"""Looks for images of 64 pixels, in which eyes and lips of true size would be one pixel high."""


def draw_face(rng: np.random.Generator, size: int, looks: Looks) -> DrawnFace:
    """Draw a face in a square image of `size` pixels, 32 or more; it depends on the generator's state alone."""
    canvas, person = Canvas(rng, size), _sample_person(rng, looks)
    _draw_background(rng, canvas, person)
    _draw_body(rng, canvas, person, looks.necklace)
    _draw_head(rng, canvas, person)
    boxes = draw_features(rng, canvas, person)
    if not person.bald:
        _draw_hair(rng, canvas, person)
    if rng.random() < looks.earrings:
        _draw_earrings(rng, canvas, person)
    if rng.random() < HATS:
        _draw_hat(rng, canvas, person)
    return DrawnFace(_render_photo(rng, canvas, person), canvas.labels, boxes)


def _sample_person(rng: np.random.Generator, looks: Looks) -> Person:
    tone, long_hair = rng.uniform(0, len(SKINS) - 1), bool(rng.random() < 0.5)
    skin = np.array([np.interp(tone, range(len(SKINS)), channel) for channel in SKINS.T])
    return Person(
        half_width=rng.uniform(0.70, 0.80),
        turn=float(np.clip(rng.normal(0, 0.2), -0.4, 0.4)),
        skin=skin * rng.uniform(0.92, 1.04) + rng.normal(0, 3, 3),
        hair=rng.choice(HAIRS) * rng.uniform(0.8, 1.25),
        long_hair=long_hair,
        bald=not long_hair and rng.random() < BALD,
        frame=rng.choice(FRAMES) if rng.random() < looks.glasses else None,
        enlarged=looks.enlarged,
    )


def _draw_background(rng: np.random.Generator, canvas: Canvas, person: Person) -> None:
    """Draw a wall and distractors, some of them in the colours of skin and hair."""
    wall = rng.uniform(40, 225) + rng.normal(0, 22, 3)
    canvas.paint(make_rectangle(-3, -3, 3, 3), wall, "background", upright=True)
    for _ in range(rng.integers(2, 8)):
        colour = (wall * rng.uniform(0.6, 1.3), person.skin, person.hair, rng.uniform(20, 235, 3))[rng.integers(4)]
        x, y, width, height = rng.uniform([-1.6, -1.6, 0.1, 0.1], [1.6, 1.6, 0.8, 0.8])
        canvas.paint(make_ellipse(x, y, width, height, power=rng.choice([2.0, 8.0])), colour + rng.normal(0, 10, 3))


def _draw_body(rng: np.random.Generator, canvas: Canvas, person: Person, necklace: float) -> None:
    """Draw shoulders, long hair on them, neck and necklace; of these only the hair leans with the head."""
    width, shoulders = person.half_width * rng.uniform(0.56, 0.68), rng.uniform(1.35, 1.85)
    collar = rng.uniform(1.2, 1.4)
    arc = make_ellipse(0, collar + 0.75, shoulders, 0.75, math.pi, 2 * math.pi, power=2.6)
    cloth = np.concatenate([arc, [[shoulders, 4], [-shoulders, 4]]])
    canvas.paint(cloth, rng.uniform(25, 230, 3), "cloth", upright=True)
    if person.long_hair:
        length, across = rng.uniform(0.9, 1.8), person.half_width * rng.uniform(1.18, 1.4)
        back = make_ellipse(0, (length - 1.1) / 2, across, (length + 1.1) / 2, power=rng.uniform(2.2, 3.5))
        canvas.paint(back, person.hair * 0.82, "hair")
    neckline = make_ellipse(0, collar, 1.25 * width, rng.uniform(0.1, 0.45), 0, math.pi, power=rng.uniform(1.2, 2.2))
    sides = [[-1.25 * width, collar], [-width, collar - 0.25], [-width, 0.4]]
    neck = np.concatenate([neckline, sides, [[-x, y] for x, y in sides[::-1]]])
    canvas.paint(neck, person.skin * 0.86, "neck", upright=True)
    canvas.paint(make_ellipse(0, 0.78, width, 0.46, 0, math.pi), person.skin * 0.72, upright=True)
    if rng.random() < necklace:
        _draw_necklace(rng, canvas, person, width, collar - 0.12)


def _draw_necklace(rng: np.random.Generator, canvas: Canvas, person: Person, width: float, y: float) -> None:
    half, dip = 0.035 * person.enlarged, rng.uniform(0.12, 0.22)
    outer = make_ellipse(0, y, width, dip + half, 0, math.pi)
    inner = make_ellipse(0, y, width, dip - half, math.pi, 0)
    metal = rng.choice(METALS) + rng.normal(0, 8, 3)
    canvas.paint(np.concatenate([outer, inner]), metal, "neck_l", upright=True)


def _draw_head(rng: np.random.Generator, canvas: Canvas, person: Person) -> None:
    """Draw the ears, unless long hair covers them, and the face without its features."""
    if not (person.long_hair and rng.random() < 0.6):
        for side, part in ((-1, "l_ear"), (1, "r_ear")):
            x, width = side * person.half_width, 0.13 * (1 - 1.4 * side * person.turn)
            canvas.paint(make_ellipse(x, 0.12, width, 0.24), person.skin * 0.9, part)
            canvas.paint(make_ellipse(x + side * 0.2 * width, 0.1, 0.45 * width, 0.14), person.skin * 0.72)
    outline = make_ellipse(0, 0, person.half_width, 1, power=2.15)
    # a head is narrower towards its chin
    outline[:, 0] *= 1 - rng.uniform(0.05, 0.25) * np.clip(outline[:, 1], 0, 1) ** 2
    canvas.paint(outline, person.skin, "skin")


def _draw_hair(rng: np.random.Generator, canvas: Canvas, person: Person) -> None:
    """Draw hair over the skull down to a hairline from temple to temple, which may be a fringe."""
    top = rng.uniform(-0.42, -0.3) if rng.random() < 0.3 else rng.uniform(-0.72, -0.55)
    temple = rng.uniform(0.0, 0.35) if person.long_hair else rng.uniform(-0.15, 0.1)
    parting, across = rng.uniform(-0.5, 0.5) * person.half_width, np.linspace(1, -1, 25) * person.half_width
    reach = person.half_width - parting * np.sign(across - parting)
    line = top + (temple - top) * (np.abs(across - parting) / reach) ** rng.uniform(2.5, 6)
    width, height = person.half_width * rng.uniform(1.03, 1.14), temple + rng.uniform(1.06, 1.2)
    skull = make_ellipse(0, temple, width, height, math.pi, 2 * math.pi, power=2.3)
    canvas.paint(np.concatenate([skull, np.stack([across, line], axis=1)]), person.hair, "hair")


def _draw_earrings(rng: np.random.Generator, canvas: Canvas, person: Person) -> None:
    metal = rng.choice(METALS) + rng.normal(0, 8, 3)
    width, length = 0.055 * person.enlarged, rng.uniform(0.06, 0.14) * person.enlarged
    for side in (-1, 1):
        x = side * person.half_width * (1.03 - 0.15 * side * person.turn)
        canvas.paint(make_ellipse(x, 0.36 + length, width, length), metal, "ear_r")


def _draw_hat(rng: np.random.Generator, canvas: Canvas, person: Person) -> None:
    colour, rim, width = rng.uniform(25, 230, 3), rng.uniform(-0.55, -0.4), 1.22 * person.half_width
    crown = make_ellipse(0, rim, width, rng.uniform(0.7, 0.95), math.pi, 2 * math.pi, power=2.6)
    canvas.paint(crown, colour, "hat")
    canvas.paint(make_ellipse(0, rim, width * rng.uniform(1.05, 1.35), 0.09, power=4.0), colour * 0.75, "hat")


def _render_photo(rng: np.random.Generator, canvas: Canvas, person: Person) -> Pixels:
    """Return pixels (H, W, 3) with light from one side, texture of hair and skin, and noise; some out of focus."""
    size, labels = canvas.size, canvas.labels
    pixels = np.asarray(canvas.picture.resize((size, size), Image.Resampling.BOX), dtype=np.float64)
    strands = Image.fromarray(rng.normal(0, 1, (size // 6 + 1, size)).astype(np.float32)).resize((size, size))
    hair, skin = labels == CLASSES.index("hair"), labels == CLASSES.index("skin")
    texture = 1 + 0.11 * hair * np.asarray(strands) + 0.02 * skin * rng.normal(0, 1, (size, size))
    pixels *= (texture * _compute_light(rng, canvas, person, labels))[:, :, None]
    pixels += rng.normal(0, rng.uniform(1, 5), pixels.shape)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < BLURRED:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.5) * size / 64))
    return np.array(picture)


def _compute_light(rng: np.random.Generator, canvas: Canvas, person: Person, labels: Pixels) -> Floats:
    """Return the brightness (H, W) of the light: on the head as an ellipsoid, on all behind it as a plane."""
    centres = np.arange(canvas.size) + 0.5
    offsets = np.stack(np.meshgrid(centres, centres), axis=2) - canvas.middle
    x, y = np.moveaxis(offsets @ canvas.rotation / canvas.unit / [1.3 * person.half_width, 1.25], 2, 0)
    facing = np.sqrt(np.clip(1 - x**2 - y**2, 0.08, 1))
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.3)
    slope = strength * (x * math.cos(angle) + y * math.sin(angle))
    behind = np.isin(labels, [CLASSES.index(part) for part in ("background", "neck_l", "neck", "cloth")])
    light: Floats = rng.uniform(0.85, 1.1) * (1 + np.where(behind, 0.4 * slope, 1.3 * slope + 0.4 * (facing - 0.85)))
    return light
