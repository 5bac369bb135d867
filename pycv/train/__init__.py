"""Training: recipes, the loop, checkpoints, metrics, and the report of a run."""
