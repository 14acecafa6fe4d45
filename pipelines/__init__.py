"""Recipes, the Dagster workflow and the command line."""
