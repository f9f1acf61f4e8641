"""What a run is asked to do: the models of a recipe, and how one is loaded."""

from slmops.recipe.load import load_recipe, parse_recipe
from slmops.recipe.models import Recipe

__all__ = ["Recipe", "load_recipe", "parse_recipe"]
