"""Recipes as YAML files, checked field by field before anything starts."""

from __future__ import annotations

from pathlib import Path

from famcli.fields import read_fields, read_yaml
from famcli.training.recipe import Recipe


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        UserError: the file is missing or not YAML, or a field is unknown, missing or not of its type.
    """
    return read_fields(Recipe, read_yaml(path, hint="see configs/recipes/"), str(path), least=0)
