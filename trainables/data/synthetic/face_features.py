"""Brows, eyes, nose, mouth and glasses of a drawn face, with the bounding boxes of COMPONENTS."""

from __future__ import annotations

import math

import numpy as np

from trainables.data.synthetic.face_canvas import (
    Canvas,
    Floats,
    Person,
    compute_bounding_box,
    make_band,
    make_ellipse,
    make_rectangle,
)

IRISES = np.array([[70, 44, 26], [84, 120, 160], [78, 108, 66], [32, 24, 20]])
WHITE, TEETH, THROAT, PUPIL = np.array([[240.0, 238, 234], [236, 232, 222], [64, 20, 24], [10, 9, 9]])


def draw_features(rng: np.random.Generator, canvas: Canvas, person: Person) -> Floats:
    """Draw all features; return the boxes (4, 4) of COMPONENTS: left, top, right, bottom in pixels.

    An eye's box includes its brow, the mouth's its lips.
    """
    distance, iris = rng.uniform(0.29, 0.34), rng.choice(IRISES) * rng.uniform(0.8, 1.2)
    openness, thickness = rng.uniform(0.75, 1.15), rng.uniform(0.75, 1.25)
    tilt, lift = rng.normal(0, 0.024), rng.normal(0, 0.015)
    if person.frame is not None:
        _draw_lenses(canvas, person, distance)
    boxes = []
    for side, name in ((-1, "l"), (1, "r")):
        brow = _draw_brow(canvas, person, side * distance, thickness, side * tilt, lift, f"{name}_brow")
        eye = _draw_eye(canvas, person, side * distance, openness, iris, f"{name}_eye")
        boxes.append(compute_bounding_box(brow, eye))
    boxes += [
        compute_bounding_box(_draw_nose(rng, canvas, person)),
        compute_bounding_box(*_draw_mouth(rng, canvas, person)),
    ]
    if person.frame is not None:
        _draw_frames(canvas, person, distance, person.frame)
    return np.stack(boxes)


def _draw_brow(
    canvas: Canvas, person: Person, x: float, thickness: float, tilt: float, lift: float, part: str
) -> Floats:
    across = np.linspace(-1, 1, 13)
    half = 0.034 * thickness * person.enlarged**1.1 * (1 - 0.6 * across**2)
    height = -0.17 - 0.07 * person.enlarged + lift + 0.035 * across**2 + tilt * across
    points = make_band(x + 0.185 * across, height - half, height + half)
    return canvas.paint(person.project(points), person.hair * 0.6 + person.skin * 0.08, part)


def _draw_eye(canvas: Canvas, person: Person, x: float, openness: float, iris: Floats, part: str) -> Floats:
    across = np.linspace(-1, 1, 17)
    width, height = 0.15 * person.enlarged**0.4, 0.072 * openness * person.enlarged
    columns, upper, lower = x + width * across, -height * (1 - across**2) ** 0.7, 0.8 * height * (1 - across**2)

    def between_lids(x: float, y: float, radius: float) -> Floats:
        circle = make_ellipse(x, y, radius, radius)
        top, bottom = (np.interp(circle[:, 0], columns, lid) for lid in (upper, lower))
        return person.project(np.stack([circle[:, 0], np.clip(circle[:, 1], top, bottom)], axis=1))

    drawn = canvas.paint(person.project(make_band(columns, upper, lower)), WHITE, part)
    radius, gaze = 0.085 * person.enlarged**0.7, x + 0.02 * math.copysign(1, person.turn)
    canvas.paint(between_lids(gaze, 0, radius), iris)
    canvas.paint(between_lids(gaze, 0, radius * 0.5), PUPIL)
    canvas.paint(between_lids(gaze - radius * 0.3, radius * -0.35, radius * 0.2), WHITE)
    lashes = make_band(columns, upper - 0.012, upper + 0.018 * person.enlarged)
    canvas.paint(person.project(lashes), person.skin * 0.25)
    return drawn


def _draw_nose(rng: np.random.Generator, canvas: Canvas, person: Person) -> Floats:
    wing, tip = rng.uniform(0.15, 0.2), rng.uniform(0.36, 0.44)
    right = [[0.05, -0.02], [0.07, 0.14], [0.8 * wing, tip - 0.12], [wing, tip - 0.03], [0.6 * wing, tip + 0.03]]
    left = [[-x, y] for x, y in right[::-1]]
    outline = np.array([*right, [0, tip + 0.055], *left])
    # the tip lies in front of the head, so that a turn moves it farther than the bridge
    forward = 0.35 * person.half_width * math.sin(person.turn)
    shift = np.array([forward, 0])
    drawn = canvas.paint(
        person.project(outline) + shift * np.clip(outline[:, 1:] / tip, 0, 1), person.skin * 0.94, "nose"
    )
    for side in (-1, 1):
        nostril = make_ellipse(side * 0.45 * wing, tip, 0.035 * person.enlarged**0.5, 0.022 * person.enlarged)
        canvas.paint(person.project(nostril) + shift, person.skin * 0.42)
    light = make_ellipse(0, tip * 0.5, 0.028, tip * 0.42)
    canvas.paint(person.project(light) + 0.6 * shift, person.skin * 1.06)
    return drawn


def _draw_mouth(rng: np.random.Generator, canvas: Canvas, person: Person) -> tuple[Floats, Floats]:
    """Draw both lips and, between them, an open mouth with teeth; return the corners of both lips."""
    across = np.linspace(-1, 1, 21)
    arch, bow = 1 - across**2, 1 - 0.3 * np.exp(-((across / 0.2) ** 2))
    columns, smile = rng.uniform(0.24, 0.32) * across, rng.normal(0.0175, 0.028)
    closed = rng.uniform(0.6, 0.66) - smile * (across**2 - 0.5)
    gap = 0.06 * max(0.0, rng.normal(0.25, 0.7)) * person.enlarged * arch
    upper, lower = closed - 0.5 * gap, closed + gap
    if gap.max() > 0.02:
        canvas.paint(person.project(make_band(columns, upper, lower)), THROAT, "mouth")
        canvas.paint(person.project(make_band(columns * 0.85, upper, upper + 0.6 * gap)), TEETH)
    red = person.skin * rng.uniform(0.3, 0.6) + [76, 25, 30]
    thickness = rng.uniform(0.045, 0.075) * person.enlarged * arch
    return (
        canvas.paint(person.project(make_band(columns, upper - thickness * bow, upper)), red, "u_lip"),
        canvas.paint(person.project(make_band(columns, lower, lower + 1.3 * thickness)), red * 1.12, "l_lip"),
    )


def _draw_lenses(canvas: Canvas, person: Person, distance: float) -> None:
    """Draw lenses, whose class also covers the skin behind them, but not the eyes, which are drawn later."""
    for side in (-1, 1):
        canvas.paint(person.project(_make_lens(person, side * distance)), person.skin * 0.7 + [60, 66, 72], "eye_g")


def _draw_frames(canvas: Canvas, person: Person, distance: float, colour: Floats) -> None:
    thickness = 0.03 * person.enlarged**1.2
    bridge = make_rectangle(-0.12, -0.03 - thickness / 2, 0.12, -0.03 + thickness / 2)
    canvas.paint(person.project(bridge, depth=1.05), colour, "eye_g")
    for side in (-1, 1):
        rim = np.concatenate(
            [_make_lens(person, side * distance), _make_lens(person, side * distance, -thickness)[::-1]]
        )
        temple = make_rectangle(side * (distance + 0.2), -0.06, side * person.half_width, -0.06 + thickness)
        for shape in (rim, temple):
            canvas.paint(person.project(shape), colour, "eye_g")


def _make_lens(person: Person, x: float, grown: float = 0.0) -> Floats:
    return make_ellipse(x, 0.01, 0.21 + grown, 0.11 + 0.05 * person.enlarged + grown, power=3.0)
