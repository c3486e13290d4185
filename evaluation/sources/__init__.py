"""Where prompts and layouts come from: readers with one face.

| source              | what it reads                                                                                |
|---------------------|----------------------------------------------------------------------------------------------|
| `coco`              | COCO instances, with captions if there are any (`coco.py`)                                   |
| `nsr1k`             | NSR-1K of LayoutGPT (Feng et al. 2023), spatial or counting (`nsr1k.py`)                     |
| `attend-and-excite` | the prompts of Attend-and-Excite (Chefer et al. 2023): two things each (`prompts.py`)        |
| `geneval`           | the metadata of GenEval (Ghosh et al. 2023), JSON lines (`prompts.py`)                       |
| `list`              | our own JSON lines or CSV, or any file of layouts that lsregen reads (`lists.py`)              |
| `shapeworld`        | scenes of coloured shapes, from seeds (`shapeworld.py`)                                          |
"""

from .base import POLICIES, SPLITS, Asked, Entry, Source
from .registry import SOURCES, read_source

__all__ = ["POLICIES", "SOURCES", "SPLITS", "Asked", "Entry", "Source", "read_source"]
