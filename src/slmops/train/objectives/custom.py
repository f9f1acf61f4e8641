"""A term of the user's own: a class, named `package.module:Class`, with `needs` and `loss`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.train.objectives.base import NEEDS, Bound, Models, View
from slmops.train.own import find_class, make, takes

if TYPE_CHECKING:
    import torch

HINT = "docs/guides/distil.md shows a term of one's own"


class Custom:
    """The user's object as a term; what goes wrong in it is told with its path."""

    def __init__(self, inner: Any, path: str, source: Path, name: str) -> None:
        """Bind the parts.

        Args:
            inner: an instance of the class.
            path: `package.module:Class`, as in the recipe.
            source: the file of the module; what it says shapes the student.
        """
        self.inner, self.path, self.source, self.name = inner, path, source, name

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.inner.needs)

    def bind(self, models: Models) -> None:
        if isinstance(self.inner, Bound):
            self.inner.bind(models)

    def loss(self, view: View) -> torch.Tensor:
        """What the object gives.

        Raises:
            BadInput: it fails, or gives no scalar tensor.
        """
        import torch

        try:
            value = self.inner.loss(view)
        except Exception as error:
            raise BadInput(f"train.objective: {self.path} fails: {type(error).__name__}: {error}", hint=HINT) from error
        if not isinstance(value, torch.Tensor) or value.ndim:
            given = f"a tensor of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)[:60]
            raise BadInput(
                f"train.objective: {self.path} gives {given}", hint="return a scalar: the mean per answer token"
            )
        return value


def load_custom(path: str, arguments: Mapping[str, Any], name: str | None = None) -> Custom:
    """The term that `train.objective` names; importing it runs its module, and an object is made.

    Args:
        path: `package.module:Class`.
        arguments: for the constructor.
        name: for logs; the class's own name when None.

    Raises:
        BadInput: it cannot be imported, is no class of that module, refuses the arguments, or is no term.
    """
    place = f"train.objective: {path}"
    found, source = find_class(path, place)
    if not callable(loss := getattr(found, "loss", None)):
        raise BadInput(f"{place}: has no method `loss`", hint=HINT)
    if not takes(loss, "view"):
        raise BadInput(f"{place}: `loss` must take one argument: the view", hint=HINT)
    inner = make(found, arguments, place)
    _check_needs(inner, place)
    return Custom(inner, path, source, name or found.__name__)


def _check_needs(inner: Any, place: str) -> None:
    needs = getattr(inner, "needs", None)
    known = ", ".join(sorted(NEEDS))
    if isinstance(needs, str) or not isinstance(needs, set | frozenset | tuple | list):
        raise BadInput(f"{place}: `needs` must be a set of names", hint=f"of {known}, or an empty one")
    if odd := [str(need) for need in needs if need not in NEEDS]:
        raise BadInput(f"{place}: `needs` names {min(odd)}, which there is not", hint=f"known: {known}")
