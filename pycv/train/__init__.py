"""Training: recipes, the loop, checkpoints, metrics, and the report of a run.

    recipe = train.recipe.override(train.recipe.load("lenet-digits"), ["optim.lr=0.01"])
    outcome = train.train(recipe, "runs/lenet-digits")
    outcome.test.top1

``prepared`` gives the same in steps: what is wrong is refused, training, the report. Needs
``pip install "pycv[train]"``.
"""

from . import losses, recipe
from .errors import DiskFull, Diverged, Interrupted, TrainError
from .evaluate import Evaluation
from .inputs import Parts, on_synthetic_data, parts
from .loop import Observer
from .recipe import Recipe
from .run import Outcome, Session, Trained, evaluate_runs, load, predict, prepared, train

__all__ = [
    "DiskFull",
    "Diverged",
    "Evaluation",
    "Interrupted",
    "Observer",
    "Outcome",
    "Parts",
    "Recipe",
    "Session",
    "TrainError",
    "Trained",
    "evaluate_runs",
    "load",
    "losses",
    "on_synthetic_data",
    "parts",
    "predict",
    "prepared",
    "recipe",
    "train",
]
