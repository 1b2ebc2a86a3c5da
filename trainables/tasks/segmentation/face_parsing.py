"""Face parsing: the segmentation of faces into 19 parts; scored by the mean F1 of those but the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainables.data.arrays.face_parsing import CLASSES
from trainables.data.arrays.label_maps import ClassTable
from trainables.tasks.segmentation.task import Segmentation

PARTS = ClassTable(
    CLASSES,
    background="background",
    exchanged=(("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear")),  # l_lip is the lower lip
)
"""The parts of a face."""


@dataclass(frozen=True)
class FaceParsing(Segmentation):
    """`Segmentation` into the parts of a face, on faces and their mirror images."""

    allowed_data: ClassVar = "CelebAMaskHQ, DrawnFaces"
    subject: ClassVar = "face"

    @property
    def class_table(self) -> ClassTable:
        return PARTS
