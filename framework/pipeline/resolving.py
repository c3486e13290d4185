"""From guidance, however it is given, to the complete configuration of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from ..config.merging import KEYS, apply_sets, merge
from ..config.options import convert
from ..config.resolve import ResolvedConfig, load_guidance, validate
from ..config.values import as_list
from ..errors import ConfigError
from ..guidance.run import Guidance, Term
from ..plugins.class_checks import OF_INSTANCES, check_instance
from ..plugins.registry import Plugins
from ..protocols import Model, Sampler

GuidanceLike: TypeAlias = ResolvedConfig | Guidance | Term | Sequence[Term] | Mapping[str, Any] | str | Path | None
SamplerLike: TypeAlias = Sampler | str | Mapping[str, Any] | None


def resolve(
    model: Model,
    plugins: Plugins,
    guidance: GuidanceLike,
    *,
    steps: int | None = None,
    cfg: float | None = None,
    sampler: SamplerLike = None,
    sets: Iterable[str] = (),
) -> ResolvedConfig:
    """The complete configuration of a run, every default filled in.

    Raises:
        ConfigError: a setting that cannot be used, one that another overrides too; or `sets` of an object's settings.
    """
    sets = cast("Sequence[str]", convert(as_list(sets, str), Sequence[str], "sets"))
    if isinstance(guidance, Term | list | tuple):
        guidance = Guidance(cast("Term | Sequence[Term]", guidance))
    walker = sampler if hasattr(sampler, OF_INSTANCES["sampler"]) else None
    given = {"steps": steps, "cfg": cfg, "sampler": None if walker is not None else sampler}
    overrides = {name: value for name, value in given.items() if value is not None}
    if isinstance(guidance, ResolvedConfig):
        if overrides or sets:
            raise ConfigError(f"{next(iter(overrides), 'sets')}: beside a resolved configuration; say it where that is resolved")
        resolved = guidance
    else:
        check_sets(sets, "guidance" if isinstance(guidance, Guidance) else None, "sampler" if walker is not None else None)
        base = {} if isinstance(guidance, Guidance) else load_guidance(cast("Any", guidance), plugins)
        for name in overrides:  # what is overridden must be of the right kind too
            if name in base:
                convert(base[name], KEYS[name], name)
        resolved = validate(apply_sets(merge(base, overrides), sets), plugins)
    if walker is not None:
        check_instance("sampler", walker)
        resolved = replace(resolved, sampler=walker, sampler_name=plugins.name_of("sampler", type(walker)))
    # Which model to load is the caller's affair; what was loaded stands in the report beside the configuration.
    resolved = replace(resolved, cfg=model.default_cfg if resolved.cfg is None else resolved.cfg, model=None)
    return resolved.with_terms(guidance.terms, plugins) if isinstance(guidance, Guidance) else resolved


def check_sets(sets: Sequence[str], *built: str | None) -> None:
    """Refuse settings of what is an object already.

    Raises:
        ConfigError: there is one.
    """
    for text in sets:
        if (part := text.partition("=")[0].strip().partition(".")[0]) in built:
            what = "a Guidance object, whose terms are built" if part == "guidance" else "a sampler that is built"
            raise ConfigError(f"sets: {text!r} beside {what}; build {'them' if part == 'guidance' else 'it'} so instead")


def guidance_of(config: ResolvedConfig) -> Guidance:
    """The guidance that a configuration describes."""
    return Guidance([Term(t.extractor, t.distance, t.schedule, t.name) for t in config.terms])
