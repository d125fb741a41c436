"""Data only: model presets, suites and recipes, one YAML file each."""
