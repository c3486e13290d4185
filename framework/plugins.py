"""Finding plugins: `discover()` reads the entry points of every installed package and returns an immutable value."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from importlib.metadata import EntryPoint, distributions
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import pluggy

from . import hookspecs
from .errors import ConfigError, LsregenError, PluginError, nearest
from .files import look
from .options import describe_options

if TYPE_CHECKING:
    from .inspection import Inspection
    from .types import Model

GROUP = "lsregen"
OWN = "lsregen"
LIMIT = "LSREGEN_PLUGINS"
KINDS = ("extractor", "distance", "sampler", "model", "detector")
FEATURE_KINDS = ("attention", "logits", "probability", "latent", "image")
MEMBERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "extractor": ("kind", "needs", "prepare", "current", "target"),
        "distance": ("accepts", "needs_target", "raster", "__call__"),
        "sampler": ("schedule", "step", "stochastic", "invert_step"),
        "model": ("embedded", "recognises", "load"),
        "detector": ("load",),
    }
)


@dataclass(frozen=True)
class Registered:
    """A plugin and where it comes from. `cls` is the dataclass, or for a model the loader object."""

    name: str
    kind: str
    cls: Any
    package: str
    version: str


@dataclass(frozen=True)
class Broken:
    """A package whose plugins could not be loaded, and why. One that is not even installed has no entry point."""

    package: str
    version: str
    entry_point: str
    error: str

    def __str__(self) -> str:
        if not self.entry_point:
            return self.error
        return f"{self.package} {self.version} (entry point {self.entry_point}): {self.error}"


Table = Mapping[str, Registered]


def _empty() -> Table:
    return MappingProxyType({})


@dataclass(frozen=True)
class Plugins:
    """All plugins found, by kind and name, and the packages that failed; `limit` is what `LSREGEN_PLUGINS` said, if it did."""

    extractors: Table = field(default_factory=_empty)
    distances: Table = field(default_factory=_empty)
    samplers: Table = field(default_factory=_empty)
    models: Table = field(default_factory=_empty)
    detectors: Table = field(default_factory=_empty)
    broken: tuple[Broken, ...] = ()
    limit: str | None = None

    def extractor(self, name: str) -> Registered:
        return self.find("extractor", name)

    def distance(self, name: str) -> Registered:
        return self.find("distance", name)

    def sampler(self, name: str) -> Registered:
        return self.find("sampler", name)

    def detector(self, name: str) -> Registered:
        return self.find("detector", name)

    def all(self) -> tuple[Registered, ...]:
        """Every plugin, by kind and then by name."""
        tables = (self.extractors, self.distances, self.samplers, self.models, self.detectors)
        return tuple(table[name] for table in tables for name in sorted(table))

    def find(self, kind: str, name: str) -> Registered:
        """A plugin by its name.

        Raises:
            PluginError: there is none; says which there are, and which packages failed to load.
        """
        table: Table = getattr(self, f"{kind}s")
        if name in table:
            return table[name]
        known = ", ".join(sorted(table)) or "none"
        raise PluginError(f"no {kind} is called {name!r}{nearest(name, table)}; installed: {known}{self._failed()}")

    def name_of(self, kind: str, cls: type) -> str:
        """The name a class is registered under; its dotted path if it is not."""
        table: Table = getattr(self, f"{kind}s")
        for name, registered in table.items():
            if registered.cls is cls:
                return name
        return f"{cls.__module__}.{cls.__qualname__}"

    def versions_of(self, *instances: object) -> dict[str, str]:
        """The packages other than lsregen that the plugins of these instances come from, and their versions."""
        classes = {type(instance) for instance in instances}
        return {one.package: one.version for one in self.all() if one.cls in classes and normalised(one.package) != OWN}

    def _failed(self) -> str:
        """What might have had the thing that was not found: a line for each broken package."""
        limited = "" if self.limit is None else f"\n{LIMIT}={self.limit!r} limits what is loaded"
        return "".join(f"\nnot loaded: {broken}" for broken in self.broken) + limited

    def embedded_models(self) -> Mapping[str, tuple[Path, Registered]]:
        """The models that ship with installed packages, by name: their folder and their loader."""
        return {
            name: (path, registered)
            for registered in self.models.values()
            for name, path in cast("hookspecs.ModelLoader", registered.cls).embedded.items()
        }

    def load_model(
        self, model: str | Path, *, device: str = "auto", dtype: str = "auto", revision: str | None = None, **options: Any
    ) -> Model:
        """Load an embedded model by name, a model's folder or file by path, or a model of a hub by its name there.

        Args:
            model: a text may be any of the three, and is looked up in this order; a `Path` is a path.
            revision: of a model of a hub: a branch, a tag or a commit.
            options: keyword arguments of the loader that recognises it, such as `vae`; those that are None are left out.

        Raises:
            ConfigError: neither, a device or dtype that does not exist, or an option that the loader does not have.
            CheckpointError: the folder or its weights cannot be used.
        """
        registered, path = self._find_model(model, revision, options.get("variant"))
        return _load_model(registered, path, device, dtype, options)

    def inspect_model(self, model: str | Path) -> Inspection:
        """What a model is that `load_model` would load; nothing is loaded, but one of a hub is downloaded.

        Raises:
            ConfigError: no such model, or its loader cannot tell.
            CheckpointError: it cannot be read.
        """
        registered, path = self._find_model(model)
        if not hasattr(registered.cls, "inspect"):
            raise ConfigError(f"model {path}: its loader {registered.name!r} of {registered.package} does not inspect models")
        return cast("hookspecs.InspectingLoader", registered.cls).inspect(path)

    def convert_model(self, path: Path, out: Path, **options: Any) -> tuple[str, ...]:
        """Write the model at a path as a folder of diffusers; returns what is still to be done, in words.

        Raises:
            ConfigError: no such model, or its loader has no need to convert it.
            CheckpointError: it cannot be read, or `out` cannot be written.
        """
        registered, path = self._find_model(Path(path))
        if not hasattr(registered.cls, "convert"):
            raise ConfigError(f"model {path}: the models of its loader {registered.name!r} need no conversion")
        given = {name: value for name, value in options.items() if value is not None}
        return cast("hookspecs.ConvertingLoader", registered.cls).convert(path, out, **given)

    def _find_model(self, model: str | Path, revision: str | None = None, variant: str | None = None) -> tuple[Registered, Path]:
        """The loader of a model, and its place. Raises as `load_model`."""
        embedded = self.embedded_models()
        if str(model) in embedded:
            path, registered = embedded[str(model)]
            return registered, _local(path, revision)
        try:
            path = Path(model).expanduser()
            there = path.exists()
        except (OSError, RuntimeError, ValueError) as error:  # no such user's home, a name that is too long, no permission
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise ConfigError(f"model {str(model)[:80]!r}: cannot be looked up ({why}); expected a name or a folder") from None
        if not there and os.path.islink(path):
            raise ConfigError(f"model {path}: {look(path).said}; if it is of a hub's cache, that was copied without its blobs")
        if not there and isinstance(model, str):
            for registered in self.models.values():
                loader = cast("hookspecs.FetchingLoader", registered.cls)
                if hasattr(loader, "fetch") and (fetched := loader.fetch(model, revision=revision, variant=variant)) is not None:
                    return registered, fetched
        if not there:
            known = ", ".join(sorted(embedded)) or "none"
            raise ConfigError(
                f"model {str(model)!r} is neither a model that ships with lsregen ({known}) nor an existing path, nor a name of "
                f"the hub's, which is of the form owner/name{nearest(str(model), embedded)}{self._failed()}"
            )
        _local(path, revision)
        for registered in self.models.values():
            if _recognises(registered, path):
                return registered, path
        raise ConfigError(
            f"model {path}: not recognised by any installed model plugin ({', '.join(sorted(self.models)) or 'none'}); "
            "expected a diffusers folder, with model_index.json in it, or a file of weights"
            f"{self._explained(path)}{self._failed()}"
        )

    def _explained(self, path: Path) -> str:
        """What a path is that no loader recognises, if one of them can tell."""
        loaders = (registered.cls for registered in self.models.values() if hasattr(registered.cls, "explain"))
        said = next((text for one in loaders if (text := cast("hookspecs.ExplainingLoader", one).explain(path))), None)
        return "" if said is None else f": {said}"


def _local(path: Path, revision: str | None) -> Path:
    if revision is not None:
        raise ConfigError(f"revision {revision!r}: {path} is on this machine; only models of a hub, owner/name, have revisions")
    return path


def _load_model(loader: Registered, path: Path, device: str, dtype: str, options: Mapping[str, Any]) -> Model:
    given = {name: value for name, value in options.items() if value is not None}
    known = [name for name in signature(loader.cls.load).parameters if name not in ("path", "device", "dtype")]
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(
            f"model {path}: {unknown[0]} is no option of {loader.name!r}, which loads it{nearest(unknown[0], known)}; options: "
            f"{', '.join(known) or 'none'}"
        )
    return loader.cls.load(path, device=device, dtype=dtype, **given)


def _recognises(loader: Registered, path: Path) -> bool:
    try:
        return bool(loader.cls.recognises(path))
    except Exception as error:  # whatever a stranger's loader raises
        at_fault = f"{loader.package} {loader.version} (model plugin {loader.name})"
        raise PluginError(f"{at_fault} failed on {path}: {type(error).__name__}: {error}") from error


def check_plugin(kind: str, name: str, cls: Any) -> None:
    """Refuse a plugin that could not work.

    Raises:
        PluginError: a bad name, not a frozen dataclass, a missing member, an option called `name`, or an unknown feature kind.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise PluginError(f"{kind} {name!r}: a name is lower case letters, digits and _, beginning with a letter")
    if kind != "model":
        frozen = is_dataclass(cls) and isinstance(cls, type) and getattr(cls, "__dataclass_params__").frozen  # noqa: B009
        if not frozen:
            raise PluginError(
                f"{kind} {name!r}: {cls!r} is not a frozen dataclass; write @dataclass(frozen=True) above the class"
            )
    known = {*dir(cls), *getattr(cls, "__dataclass_fields__", {})}
    missing = [member for member in MEMBERS[kind] if member not in known]
    if missing:
        raise PluginError(f"{kind} {name!r}: {getattr(cls, '__name__', cls)} has no {', '.join(missing)}")
    if kind == "model":
        return
    if any(option.key == "name" for option in describe_options(cast("type", cls))):
        raise PluginError(f"{kind} {name!r}: an option cannot be called 'name', which names the plugin itself in a configuration")
    stated = {"extractor": "kind", "distance": "accepts"}.get(kind)
    if stated is None:
        return
    value = getattr(cls, stated, None)
    items: object = (value,) if kind == "extractor" else value
    if not isinstance(items, tuple) or not items:
        raise PluginError(f"{kind} {name!r}: {stated} is {value!r}; expected a tuple of feature kinds, such as ('attention',)")
    for item in cast("tuple[object, ...]", items):
        if item not in FEATURE_KINDS:
            raise PluginError(f"{kind} {name!r}: {stated} {item!r} is not one of {', '.join(FEATURE_KINDS)}")


def discover(only: Iterable[str] | None = None) -> Plugins:
    """Load the plugins of every installed distribution.

    `only`: names of the distributions whose plugins are loaded, besides lsregen's own; by default those in the environment
    variable `LSREGEN_PLUGINS` (comma separated; empty for none), or all if it is not set. A package that fails is listed as
    broken and does not take the others down; so is a name in the variable that no installed distribution has.
    """
    limit = os.environ.get(LIMIT) if only is None else None
    allowed = allowed_packages() if only is None else frozenset(map(normalised, only))
    wanted = None if allowed is None else {*allowed, OWN}
    tables: dict[str, dict[str, Registered]] = {kind: {} for kind in KINDS}
    broken = [] if limit is None else _unknown(limit)
    for package, version, entry_point in _entry_points():
        if wanted is not None and normalised(package) not in wanted:
            continue
        try:
            for registered in _load(entry_point, package, version, tables):
                tables[registered.kind][registered.name] = registered
        except (Exception, SystemExit) as error:  # whatever a stranger's module raises
            text = str(error) if isinstance(error, LsregenError) else f"{type(error).__name__}: {error}"
            broken.append(Broken(package, version, f"{entry_point.name} = {entry_point.value}", text))
    found = {f"{kind}s": MappingProxyType(table) for kind, table in tables.items()}
    return Plugins(**found, broken=tuple(broken), limit=limit)


def _unknown(limit: str) -> list[Broken]:
    """The names in `LSREGEN_PLUGINS` that no installed distribution has: each would hide the package that it means."""
    named = [name.strip() for name in limit.split(",") if name.strip()]
    installed = {normalised(distribution.metadata["Name"] or "") for distribution in distributions()} if named else set[str]()
    offering = sorted({package for package, _, _ in _entry_points()} - {OWN}) if named else []
    return [
        Broken(
            name,
            "",
            "",
            f"{LIMIT}={limit!r}: no installed distribution is called {name!r}"
            f"{nearest(normalised(name), offering) or nearest(normalised(name), installed)}; "
            f"those with plugins: {', '.join(offering) or 'none'}",
        )
        for name in named
        if normalised(name) not in installed
    ]


def _load(entry_point: EntryPoint, package: str, version: str, tables: Mapping[str, Table]) -> list[Registered]:
    """What one entry point registers, each checked as it comes in, so that a run does not fail at step 37."""
    manager = pluggy.PluginManager("lsregen")  # of its own: pluggy skips a second entry point of the same name silently
    manager.add_hookspecs(hookspecs)
    module = entry_point.load()
    manager.register(module, name=entry_point.value)
    manager.check_pending()  # a misspelled hook
    if not manager.get_hookcallers(module):
        raise PluginError("it implements no hook of lsregen; mark its functions with @hookimpl")
    staged: list[Registered] = []

    def register(kind: str, name: str, cls: Any) -> None:
        check_plugin(kind, name, cls)
        plugin = Registered(name, kind, cls, package, version)
        _check_free(plugin, [*tables[kind].values(), *(other for other in staged if other.kind == kind)])
        staged.append(plugin)

    for kind in KINDS:
        getattr(manager.hook, f"register_{kind}s")(register=partial(register, kind))
    return staged


def _check_free(plugin: Registered, others: Iterable[Registered]) -> None:
    """Refuse a name that another plugin of the same kind has, or whose embedded models have one of this plugin's."""
    for other in others:
        if other.name == plugin.name:
            raise PluginError(f"{plugin.kind} {plugin.name!r} is already registered by {other.package} {other.version}")
        if plugin.kind == "model" and (both := sorted(set(plugin.cls.embedded) & set(other.cls.embedded))):
            raise PluginError(f"a model called {both[0]!r} ships with {other.package} {other.version} already")


def _entry_points() -> list[tuple[str, str, EntryPoint]]:
    """Package, version and entry point of the group's; lsregen's own first, then by name. A package found twice counts once."""
    found: dict[str, list[tuple[str, str, EntryPoint]]] = {}
    for distribution in distributions():
        points = [point for point in distribution.entry_points if point.group == GROUP]
        if points:  # a package that was half removed has no name
            package, version = (distribution.metadata[key] or "unknown" for key in ("Name", "Version"))
            found.setdefault(normalised(package), [(package, version, point) for point in points])
    order = sorted(found, key=lambda name: (name != OWN, name))
    return [each for name in order for each in sorted(found[name], key=lambda each: each[2].name)]


def allowed_packages() -> frozenset[str] | None:
    """The packages that the environment variable `LSREGEN_PLUGINS` lets in, normalised; None if it is not set: then all are."""
    limit = os.environ.get(LIMIT)
    return None if limit is None else frozenset(map(normalised, limit.split(",")))


def normalised(package: str) -> str:
    """A package's name as the package index compares names."""
    return re.sub(r"[-_.]+", "-", package.strip()).lower()
