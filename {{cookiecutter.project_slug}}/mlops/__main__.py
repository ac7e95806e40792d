"""Let `python -m mlops` run the command line."""

import atexit
import gc

# Imports of torch, MLflow and DVC make millions of objects that stay: looking through them for garbage, over and over
# and once more at the end, took a third of the time of a stage.
gc.set_threshold(100_000, 50, 1000)
atexit.register(gc.freeze)

from .cli import main  # noqa: E402

main()
