"""Configuration: what a trial trains; with domains in its fields, the search space of a cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from study.space.domains import UNNAMED, Value, is_unresolved
from study.space.params import read_params


@dataclass(frozen=True)
class Configuration:
    """A loss, the recipe that it is trained by, and the student: whatever a search may decide.

    A parameter is named by its path, `recipe.learning_rate` or `student.width`; those of the loss have no prefix.
    """

    loss: Any = field(metadata=UNNAMED)
    recipe: Any = None
    student: Any = None

    @property
    def is_searched(self) -> bool:
        """True if any field contains a domain."""
        return is_unresolved(self)

    def read_first_point(self, first: Any) -> dict[str, Value]:
        """Return the parameters of a point in this space: a loss, or a Configuration of the parts to be fixed.

        Parameters of parts that are not given are left to the sampler.
        Raises InputError naming the value that lies outside the space.
        """
        given = first if isinstance(first, Configuration) else Configuration(first)
        params = read_params(self.loss, given.loss)
        if given.recipe is not None:
            params |= read_params(self.recipe, given.recipe, "recipe")
        if given.student is not None:
            params |= read_params(self.student, given.student, "student")
        return params
