"""Recipes: pipelines of the commands as data, validated before anything runs, and resumed."""
