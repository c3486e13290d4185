"""What guidance costs: counted exactly without running anything (`count`), and timed (`step`, `image`).

    python -m benchmarks.count [--json FILE]
    python -m benchmarks.load [--json FILE]
    python -m benchmarks.step [--json FILE]
    python -m benchmarks.image [--json FILE]
    python -m benchmarks.gpu [--json FILE]      # all that only a machine with a card can show
    python -m benchmarks.table            # docs/performance.md from benchmarks/results/*.json

Not installed; they need the `bench` extra, for the implementation that ours is compared with.
"""
