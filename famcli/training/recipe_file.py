"""Recipes as YAML files, checked field by field before anything starts."""

from __future__ import annotations

from pathlib import Path

from famcli.fields import read_fields, read_yaml
from famcli.training.recipe import Recipe
from famcli.training.recorded.recipe import RecordedRecipe


def load_recipe(path: Path) -> Recipe | RecordedRecipe:
    """Reads a recipe; one with ``recordings`` is of the second kind.

    Raises:
        UserError: the file is missing or not YAML, or a field is unknown, missing or not of its type.
    """
    fields = read_yaml(path, hint="see configs/recipes/")
    if isinstance(fields, dict) and "recordings" in fields:
        return read_fields(RecordedRecipe, fields, str(path), least=0)
    return read_fields(Recipe, fields, str(path), least=0)
