"""How the embedded models were made. Not installed; run from a checkout, e.g. `python -m recipes.shapeworld.train_base`."""
