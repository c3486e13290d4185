"""Finding plugins: `discover()` reads the entry points of every installed package and returns an immutable value."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import pluggy

from ..config.arguments import checked
from ..config.load_options import LoadOptions
from ..config.options import convert
from ..errors import ConfigError, LsregenError, PluginError, nearest, shown
from ..files import look
from . import hookspecs
from .calls import calling, raised
from .class_checks import FUNCTIONS, KINDS, check_function, check_hooks, check_plugin
from .distributions import OWN, entry_points, normalised
from .found import Broken, Registered, Table, empty
from .presets import Fits, Preset, check_preset, fitting, made_preset

if TYPE_CHECKING:
    from ..protocols import Model
    from .inspection import Inspection

LIMIT = "LSREGEN_PLUGINS"
OF_EVERY_MODEL = ("device", "dtype", "revision")
DEFAULTS = LoadOptions()
REGISTER = "install a package whose entry point registers it, or build the Guidance in Python"


@dataclass(frozen=True)
class Plugins:
    """All plugins found, by kind and name, and the packages that failed; `limit` is what `LSREGEN_PLUGINS` said, if it did."""

    extractors: Table = field(default_factory=empty)
    distances: Table = field(default_factory=empty)
    samplers: Table = field(default_factory=empty)
    models: Table = field(default_factory=empty)
    detectors: Table = field(default_factory=empty)
    engines: Table = field(default_factory=empty)
    functions: Mapping[str, Table] = field(default_factory=lambda: MappingProxyType[str, Table]({}))
    presets: Mapping[str, Preset] = field(default_factory=lambda: MappingProxyType[str, Preset]({}))
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

    def engine(self, name: str) -> Registered:
        return self.find("engine", name)

    def preset(self, name: str) -> Preset:
        """A preset by its name.

        Raises:
            ConfigError: there is none of this name.
        """
        name = convert(name, str, "preset")
        if name not in self.presets:
            raise ConfigError(
                f"guidance {shown(name)}: no such preset{nearest(name, self.presets)}; presets: {', '.join(self.presets)}; "
                f"or none, or a file ending in .yaml{self._failed()}"
            )
        return self.presets[name]

    def default_guidance(self, fits: Fits, model: str) -> str:
        """The preset for layouts with `boxes` or `phrases` of a model where none is named; `none` if there is no such preset."""
        fits, model = convert(fits, Fits, "fits"), convert(model, str, "model")
        found = fitting(self.presets, fits, model)
        return "none" if found is None else found.name

    def all(self) -> tuple[Registered, ...]:
        """Every plugin, by kind and then by name."""
        tables = map(self._table, KINDS)
        return tuple(table[name] for table in tables for name in sorted(table))

    def find(self, kind: str, name: str) -> Registered:
        """A plugin by its name.

        Raises:
            PluginError: there is none; says which there are, and which packages failed to load.
        """
        table = self._table(kind)
        name = convert(name, str, kind)
        if name in table:
            return table[name]
        for broken in self.broken:
            if broken.package == OWN:
                raise PluginError(f"lsregen's own plugins could not be loaded, so {kind} {name!r} is not there: {broken}")
        known = ", ".join(sorted(table)) or "none"
        unregistered = f"; {shown(name)} is the path of a class that no package registers: {REGISTER}" if "." in name else ""
        raise PluginError(
            f"no {kind} is called {shown(name)}{nearest(name, table)}; installed: {known}{unregistered}{self._failed()}"
        )

    def _table(self, kind: str) -> Table:
        if not isinstance(cast("object", kind), str) or kind not in KINDS:
            raise ConfigError(f"kind {shown(kind)}: expected one of {', '.join(KINDS)}")
        return getattr(self, f"{kind}s")

    def name_of(self, kind: str, cls: type) -> str:
        """The name a class is registered under; its dotted path if it is not."""
        for name, registered in self._table(kind).items():
            if registered.cls is cls:
                return name
        return f"{convert(cls, type, 'cls').__module__}.{cls.__qualname__}"

    def versions_of(self, *instances: object) -> dict[str, str]:
        """The packages other than lsregen that the plugins of these instances, and functions by name in them, come from."""
        classes = [type(instance) for instance in instances]  # compared by identity: a model's loader may have no hash
        used = [one for one in self.all() if any(one.cls is cls for cls in classes)]
        for kind, table in self.functions.items():
            named = {getattr(instance, FUNCTIONS[kind], None) for instance in instances}
            used += [one for name, one in table.items() if name in named]
        return {one.package: one.version for one in used if normalised(one.package) != OWN}

    def _failed(self) -> str:
        """What might have had the thing that was not found: a line for each broken package."""
        limited = "" if self.limit is None else f"\n{LIMIT}={self.limit!r} limits what is loaded"
        return "".join(f"\nnot loaded: {broken}" for broken in self.broken) + limited

    def embedded_models(self) -> Mapping[str, tuple[Path, Registered]]:
        """The models that ship with installed packages, by name: their folder and their loader."""
        return {name: (path, registered) for registered in self.models.values() for name, path in _embedded(registered).items()}

    def load_model(self, model: str | Path, *, wherever_taken: Mapping[str, Any] | None = None, **options: Any) -> Model:
        """Load an embedded model by name, a model's folder or file by path, or a model of a hub by its name there.

        Args:
            model: a text may be any of the three, and is looked up in this order; a `Path` is a path.
            wherever_taken: options that are left out where the loader does not take them, or they are given besides.
            options: those of `LoadOptions`, by name; those that are None are left out.

        Raises:
            ConfigError: neither, a device or dtype that does not exist, or an option that the loader does not take.
            CheckpointError: the folder or its weights cannot be used.
        """
        given = LoadOptions.of(options)
        spare: Mapping[str, Any] = convert({} if wherever_taken is None else wherever_taken, Mapping[str, Any], "wherever_taken")
        registered, path = self._find_model(model, given)
        takes: Collection[str] = registered.cls.takes
        if unknown := [name for name in given.changed() if name not in (*OF_EVERY_MODEL, *takes)]:
            raise ConfigError(
                f"model {path}: {unknown[0]} is no option of {registered.name!r}, which loads it; options: "
                f"{', '.join((*OF_EVERY_MODEL, *takes))}"
            )
        spare = {name: value for name, value in spare.items() if name in takes and options.get(name) is None}
        given = LoadOptions.of({**options, **spare})
        with _loading(registered, path, "load"):
            return registered.cls.load(path, given)

    def inspect_model(self, model: str | Path) -> Inspection:
        """What a model is that `load_model` would load; nothing is loaded, but one of a hub is downloaded.

        Raises:
            ConfigError: no such model, or its loader cannot tell.
            CheckpointError: it cannot be read.
        """
        registered, path = self._find_model(model)
        if not hasattr(registered.cls, "inspect"):
            raise ConfigError(f"model {path}: its loader {registered.name!r} of {registered.package} does not inspect models")
        with _loading(registered, path, "inspect"):
            return cast("hookspecs.InspectingLoader", registered.cls).inspect(path)

    def convert_model(self, path: Path, out: Path, **options: Any) -> tuple[str, ...]:
        """Write the model at a path as a folder of diffusers; returns what is still to be done, in words.

        Raises:
            ConfigError: no such model, or its loader has no need to convert it.
            CheckpointError: it cannot be read, or `out` cannot be written.
        """
        registered, path = self._find_model(convert(path, Path, "path"))
        out = convert(out, Path, "out")
        if not hasattr(registered.cls, "convert"):
            raise ConfigError(f"model {path}: the models of its loader {registered.name!r} need no conversion")
        given = {name: value for name, value in options.items() if value is not None}
        with _loading(registered, path, "convert"):
            return cast("hookspecs.ConvertingLoader", registered.cls).convert(path, out, **given)

    def _find_model(self, model: str | Path, options: LoadOptions = DEFAULTS) -> tuple[Registered, Path]:
        """The loader of a model, and its place. Raises as `load_model`."""
        model = convert(model, str | Path, "model")
        if not str(model).strip():
            raise ConfigError(f"model {model!r} is empty; give a name or a path")
        embedded = self.embedded_models()
        if str(model) in embedded:
            path, registered = embedded[str(model)]
            return registered, _local(path, options.revision)
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
                with _loading(registered, model, "fetch"):
                    fetched = loader.fetch(model, options) if hasattr(loader, "fetch") else None
                if fetched is not None:
                    return registered, fetched
        if not there:
            known = ", ".join(sorted(embedded)) or "none"
            raise ConfigError(
                f"model {str(model)!r} is neither a model that ships with lsregen ({known}) nor an existing path, nor a name of "
                f"the hub's, which is of the form owner/name{nearest(str(model), embedded)}{self._failed()}"
            )
        _local(path, options.revision)
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
        for registered in self.models.values():
            with _loading(registered, path, "explain"):
                if hasattr(registered.cls, "explain") and (said := registered.cls.explain(path)):
                    return f": {said}"
        return ""


def _local(path: Path, revision: str | None) -> Path:
    if revision is not None:
        raise ConfigError(f"revision {revision!r}: {path} is on this machine; only models of a hub, owner/name, have revisions")
    return path


def _recognises(loader: Registered, path: Path) -> bool:
    with _loading(loader, path, "recognises"):
        return bool(loader.cls.recognises(path))


def _embedded(loader: Registered) -> Mapping[str, Path]:
    with _loading(loader, "", "embedded"):
        return cast("hookspecs.ModelLoader", loader.cls).embedded


def _loading(loader: Registered, model: str | Path, method: str) -> AbstractContextManager[None]:
    return calling(f"model {model}" if model else "", f"model plugin {loader.name!r}, loader", loader.cls, method)


def installed(plugins: object) -> Plugins:
    """The given plugins, or all that are installed.

    Raises:
        ConfigError: something else is given.
    """
    if plugins is not None and not isinstance(plugins, Plugins):  # of a mapping, `convert` would make plugins
        raise ConfigError(f"plugins: {shown(plugins)} is not Plugins, as discover() gives them")
    return discover() if plugins is None else plugins


@checked
def discover(only: Sequence[str] | Set[str] | None = None) -> Plugins:
    """Load the plugins of every installed distribution.

    `only`: names of the distributions whose plugins are loaded, besides lsregen's own; by default those in the environment
    variable `LSREGEN_PLUGINS` (comma separated; empty for none), or all if it is not set. A package that fails is listed as
    broken and does not take the others down; so is a name in the variable that no installed distribution has.
    """
    limit = os.environ.get(LIMIT) if only is None else None
    allowed = allowed_packages() if only is None else frozenset(map(normalised, only))
    wanted = None if allowed is None else {*allowed, OWN}
    tables: dict[str, dict[str, Registered]] = {kind: {} for kind in (*KINDS, *FUNCTIONS)}
    presets: dict[str, Preset] = {}
    broken = [] if limit is None else _unknown(limit)
    for package, version, entry_point in entry_points():
        if wanted is not None and normalised(package) not in wanted:
            continue
        try:
            plugins, brought = _load(entry_point, package, version, tables, presets)
            for registered in plugins:
                tables[registered.kind][registered.name] = registered
            presets |= {preset.name: preset for preset in brought}
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a stranger's module raises
            text = str(error) if isinstance(error, LsregenError) else raised(error)
            broken.append(Broken(package, version, f"{entry_point.name} = {entry_point.value}", text))
    found = {f"{kind}s": MappingProxyType(tables[kind]) for kind in KINDS}
    functions = MappingProxyType({kind: MappingProxyType(tables[kind]) for kind in FUNCTIONS})
    return Plugins(
        **found, functions=functions, presets=MappingProxyType(dict(sorted(presets.items()))), broken=tuple(broken), limit=limit
    )


def _unknown(limit: str) -> list[Broken]:
    """The names in `LSREGEN_PLUGINS` that no installed distribution has: each would hide the package that it means."""
    named = [name.strip() for name in limit.split(",") if name.strip()]
    installed = {normalised(distribution.metadata["Name"] or "") for distribution in distributions()} if named else set[str]()
    offering = sorted({package for package, _, _ in entry_points()} - {OWN}) if named else []
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


def _load(
    entry_point: EntryPoint, package: str, version: str, tables: Mapping[str, Table], presets: Mapping[str, Preset]
) -> tuple[list[Registered], list[Preset]]:
    """What one entry point registers, each checked as it comes in, so that a run does not fail at step 37."""
    manager = pluggy.PluginManager("lsregen")  # of its own: pluggy skips a second entry point of the same name silently
    manager.add_hookspecs(hookspecs)
    module = entry_point.load()
    manager.register(module, name=entry_point.value)
    check_hooks(manager)
    if not manager.get_hookcallers(module):
        raise PluginError("it implements no hook of lsregen; mark its functions with @hookimpl")
    staged: list[Registered] = []
    brought: list[Preset] = []

    def register_preset(name: str, path: str | Path, *, fits: Fits | None = None, models: Sequence[str] = ()) -> None:
        preset = made_preset(name, path, package, version, fits=fits, models=models)
        check_preset(preset, [*presets.values(), *brought])
        brought.append(preset)

    def register(kind: str, name: str, cls: Any) -> None:
        (check_function if kind in FUNCTIONS else check_plugin)(kind, name, cls)
        plugin = Registered(name, kind, cls, package, version)
        _check_free(plugin, [*tables[kind].values(), *(other for other in staged if other.kind == kind)])
        staged.append(plugin)

    for kind in (*KINDS, *FUNCTIONS):
        getattr(manager.hook, f"register_{kind}s")(register=partial(register, kind))
    manager.hook.register_presets(register=register_preset)
    return staged, brought


def _check_free(plugin: Registered, others: Iterable[Registered]) -> None:
    """Refuse a name that another plugin of the same kind has, or whose embedded models have one of this plugin's."""
    for other in others:
        if other.name == plugin.name:
            raise PluginError(f"{plugin.kind} {plugin.name!r} is already registered by {other.package} {other.version}")
        if plugin.kind == "model" and (both := sorted(set(plugin.cls.embedded) & set(other.cls.embedded))):
            raise PluginError(f"a model called {both[0]!r} ships with {other.package} {other.version} already")


def allowed_packages() -> frozenset[str] | None:
    """The packages that the environment variable `LSREGEN_PLUGINS` lets in, normalised; None if it is not set: then all are."""
    limit = os.environ.get(LIMIT)
    return None if limit is None else frozenset(map(normalised, limit.split(",")))
