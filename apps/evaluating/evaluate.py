"""`lsregen evaluate`: methods compared, on scenes whose answers are known or by a plan of any size, and tables of the results."""

from __future__ import annotations

import click

from ..cli import NamingGroup
from .attention import attention
from .plan_and_run import plan, run, status
from .reports import page, plot, table
from .scoring import score
from .shapeworld import shapeworld


@click.group(name="evaluate", cls=NamingGroup)
def command() -> None:
    """Measure methods: on a world with exact answers, or on prompts and layouts of any source.

    \b
    lsregen evaluate shapeworld --guidance none,layout-guidance --json result.json
    lsregen evaluate table result.json
    \b
    lsregen evaluate plan coco instances.json --split multi --guidance none,layout-guidance --out plan.jsonl
    lsregen evaluate run plan.jsonl --out run
    lsregen evaluate score run --detector detr/ --clip clip/ --features inception.pt --reference val2017/
    """


for _each in (shapeworld, attention, plan, run, status, score, table, page, plot):
    command.add_command(_each)
