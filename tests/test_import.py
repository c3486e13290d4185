"""The package is found as a package wherever Python is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_beside_a_clone_the_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "lsregen").symlink_to(ROOT)
    done = subprocess.run([sys.executable, "-c", "import lsregen; print(lsregen.__version__)"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
