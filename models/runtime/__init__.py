"""Networks put together as a model, and where and how they run."""
