"""Settings that change nothing: some are errors, others give a warning, as the images do not show that they were ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..capabilities import grounded_steps, sees_boxes
from ..config.presets import presets
from ..config.resolve import ResolvedConfig, load_guidance
from ..errors import ConfigError
from ..guidance.run import Term
from ..protocols import Model, Run


def check_seen(model: Model, preset: str) -> None:
    """Whether a model sees the boxes that a preset without terms, such as `gligen`, leaves to it; `none` leaves it nothing.

    Raises:
        ConfigError: it does not.
    """
    if preset != "none" and preset in presets() and not sees_boxes(model):
        raise ConfigError(
            f"guidance {preset!r}: it has no terms, as its model sees the boxes itself, and {model.name!r} does not; leave the "
            "model to the preset, name a GLIGEN model, or another guidance, or 'none' to draw without boxes"
        )


def pulls_nothing(guidance: str | Path, model: Model) -> str:
    """What is said of guidance without terms, whose boxes the model does not see either."""
    return (
        f"the guidance {str(guidance)!r} pulls nothing, and the model {model.name} does not see boxes: the layout changes nothing"
    )


def unused_settings(run: Run, guidance: object, pulled: bool, negatives: Sequence[str], cfg: float) -> Iterator[str]:
    """A warning for each setting that changes nothing.

    Args:
        run: from the step at which it is entered.
        guidance: as it was given; an empty mapping means that nothing shall pull, and gives no warning.
        pulled: whether any term pulls.
    """
    prompts = [("prompt", table) for table in {table.prompt: table for table in run.denoiser.tokens}.values()]
    if cfg != 1:
        prompts += [("negative prompt", run.model.tokens(negative)) for negative in dict.fromkeys(negatives)]
    for what, table in prompts:
        if unknown := " and ".join(map(repr, table.unknown)):
            yield f"{what} {table.prompt!r}: the model {run.model.name} has no token for {unknown}; use other words for it"
    if cfg == 1 and any(negatives):
        yield "at cfg 1 a negative prompt changes nothing: raise cfg, or leave the negative prompt out"
    if pulled:
        return
    if not any(layout.boxed for layout in run.layouts):
        if sees_boxes(run.model) and _left_to_a_model(guidance):
            yield f"no image has a box, so the model {run.model.name} draws from the prompt alone"
    elif sees_boxes(run.model):
        first, grounded = run.steps[0], grounded_steps(run.denoiser)
        if 0 < grounded <= first.index:
            yield (
                f"image-to-image enters at step {first.index} of {first.count}, and {run.model.name} sees the boxes in the first "
                f"{grounded}: the layout changes nothing; raise strength, or the model's option grounding"
            )
    elif guidance is None:
        yield "a layout without guidance changes nothing: pass guidance='layout-guidance', or {} if none is meant"
    elif isinstance(guidance, str | Path) and guidance != "none":
        yield pulls_nothing(guidance, run.model)


def _left_to_a_model(guidance: object) -> bool:
    """Whether guidance without terms names a model, as the preset `gligen` does: to that it leaves the boxes."""
    if isinstance(guidance, ResolvedConfig):
        return guidance.model is not None
    return isinstance(guidance, Mapping | str | Path) and bool(load_guidance(cast("Any", guidance)).get("model"))


def render_warnings(run: Run, terms: Sequence[Term], wanted: tuple[int, int] | None) -> Iterator[str]:
    """A warning for each reason why the picture that a run begins with brings no layout, or no more detail.

    Args:
        terms: without any, no layout is meant.
        wanted: the size of the other run's images, unless the render's own size was asked for.
    """
    if run.size == wanted:
        yield (
            f"the picture of the model {run.model.name} is as large as the image, {run.size[0]}x{run.size[1]} pixels, so nothing "
            "is enlarged: load a larger model, such as the one that the preset names, or, if that is meant, set the source's size"
        )
    if not any(layout.boxed for layout in run.layouts):
        yield "no image has a box, so the picture that is rendered first has no layout to bring"
    elif terms and not sees_boxes(run.model) and not any(term.distance.needs_target for term in terms):
        yield f"neither the model {run.model.name} nor its guidance looks at boxes, so its picture has no layout to bring"
