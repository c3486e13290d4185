"""How well a run did: worlds with exact answers, metrics, and the runs that compare methods."""
