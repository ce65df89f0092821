"""The one home of Hydra and OmegaConf: find conf/, compose, instantiate what may be instantiated."""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
import hydra.utils
import hydra.version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationResolutionError, OmegaConfBaseException

from videogn.identity import DATASET_PATHS, PATHS, leaves
from videogn.types import InputError

_PACKAGE = Path(__file__).parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
_STORED = "stored_configuration"  # the name under which evaluate.yaml and export.yaml find the checkpoint's configuration

# In conf/train.yaml, for those who use a data set.
_OF_EVERY_DATASET = ("exclude", "max_bad_fraction")
# Beside the classes that conf/ names: every optimiser, schedule, callback and logger of the libraries, by one plain class name.
_LIBRARY_TARGET = re.compile(
    r"(torch\.optim|torch\.optim\.lr_scheduler|lightning\.pytorch\.callbacks|lightning\.pytorch\.loggers)\.[A-Z]\w*"
)
# What to give for an argument of a plain type.
_PLAIN: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    types.NoneType: "null",
}


def run_application(
    name: str,
    arguments: Sequence[str],
    task: Callable[[DictConfig], int],
    stored: DictConfig | None = None,
    sweep: Callable[[HydraContext, TaskFunction, DictConfig, list[str]], None] | None = None,
) -> int:
    """Compose conf/<name>.yaml with the command line and run `task` on it, or hand a multirun to the sweeper.

    Args:
        arguments: the command line after the command's name.
        task: takes the composed configuration, answers an exit status.
        stored: the configuration of a checkpoint, which conf/<name>.yaml then starts from; groups that the command line
            chooses anew replace the stored ones.
        sweep: what -m does, from Hydra's context, the task of one job, the composed configuration and the overrides.

    Returns:
        The exit status of `task`; 0 after a multirun, whose launcher knows its jobs.

    Raises:
        InputError: for everything that Hydra has to say about the command line.
    """
    arguments = quoted(arguments)
    # argparse takes positionals in one run only, and -m may stand anywhere.
    overrides = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    flags = [a for a in arguments if a not in overrides]
    for key in (override.lstrip("+~").partition("=")[0] for override in overrides):
        # Hydra would make the folder, and leave it empty. Lightning gives it to the processes of the other devices.
        if key.startswith(("hydra.run.", "hydra.sweep.")) and "LOCAL_RANK" not in os.environ:
            raise InputError(
                f"{key}: the folders are videogn's; give that of a run as out=FOLDER, the name of a multirun's as sweep=NAME"
            )
    chosen = {override.split("=", 1)[0] for override in overrides}
    # A group that is chosen anew must not be merged into the stored one; a value simply replaces the stored value.
    base = {key: value for key, value in (stored or {}).items() if not (key in chosen and isinstance(value, DictConfig))}
    ConfigStore.instance().store(_STORED, OmegaConf.create(base))
    Plugins.instance().register(_UserConf)
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise InputError(f"{name}: {message}; `videogn {name} --help` shows what can be set")

    parser.error = refuse  # pyright: ignore[reportAttributeAccessIssue] (argparse's own prints its usage, of eight lines)
    parsed = parser.parse_args([*flags, *overrides])
    status = 0
    failure: Exception | None = None

    def run(config: DictConfig) -> None:
        nonlocal status, failure
        try:
            for key in sorted(OmegaConf.missing_keys(config)):
                raise InputError(f"{key}: needed; give it as {key}=VALUE")
            status = task(config)
        except (ConfigKeyError, ConfigAttributeError) as error:  # the second: a group of which no file is chosen
            failure = InputError(f"{error.full_key}: not in the configuration, and needed; give it back")
        except InterpolationResolutionError as error:
            failure = InputError(f"{error.full_key}: {str(error).splitlines()[0]}; correct what stands in ${{...}}")
        except Exception as error:  # Hydra would print the command line before it raises this again
            failure = error

    hydra.version.setbase("1.3")
    GlobalHydra.instance().clear()
    search_path = create_config_search_path(str(CONF))
    if parsed.config_dir is not None:
        if not Path(parsed.config_dir).is_dir():
            raise InputError(f"--config-dir: {parsed.config_dir}: no such folder")
        search_path.prepend("command-line", f"file://{os.path.abspath(parsed.config_dir)}")
    try:
        # hydra.main would do the same, but prints errors itself, reads sys.argv and hides what the task raised.
        application = Hydra.create_main_hydra2("videogn", search_path)
        if parsed.help:
            application.app_help(name, parser, parsed)
        elif parsed.hydra_help:
            application.hydra_help(name, parser, parsed)
        elif parsed.shell_completion:
            application.shell_completion(name, overrides)
        elif parsed.info is not None:
            application.show_info(parsed.info, name, overrides)
        elif parsed.cfg is not None:
            application.show_cfg(name, overrides, parsed.cfg, parsed.package, parsed.resolve)
        elif parsed.multirun or (sweep is not None and _is_multirun(application, name, overrides)):
            if sweep is None:
                raise InputError(f"-m: `videogn {name}` takes one configuration; -m is for train")
            config = application.compose_config(name, overrides, RunMode.MULTIRUN)
            sweep(HydraContext(application.config_loader, Callbacks(config)), run, config, overrides)
        else:
            application.run(name, run, overrides)
    except InputError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a group that is null
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(_one_line(name, error, overrides)) from error
    finally:
        GlobalHydra.instance().clear()
    if failure is not None:
        raise failure
    return status


def _is_multirun(application: Hydra, name: str, overrides: Sequence[str]) -> bool:
    """Whether an experiment is one: its file says so, hydra.mode."""
    if not any(override.startswith("experiment=") for override in overrides):
        return False
    return (
        application.compose_config(name, list(overrides), RunMode.RUN, validate_sweep_overrides=False).hydra.mode
        == RunMode.MULTIRUN
    )


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """conf/<name>.yaml with overrides, as the command line would compose it, for scripts and tests."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        ConfigStore.instance().store(_STORED, OmegaConf.create({}))
        return hydra.compose(name, list(overrides))


def quoted(arguments: Sequence[str]) -> list[str]:
    """The command line with the values that may be paths quoted for Hydra's grammar.

    `dataset.root=/my videos, 2024` becomes `dataset.root='/my videos, 2024'`. Values that Hydra reads as they are, are
    already quoted, or are a list, an interpolation or a sweep pass unchanged.
    """
    sweeping = bool({"-m", "--multirun"} & set(arguments))
    return [_quoted(argument, sweeping) for argument in arguments]


def _quoted(argument: str, sweeping: bool) -> str:
    key, equals, value = argument.partition("=")
    plain_key = key.lstrip("+")
    if not equals or not (plain_key in (*PATHS, "weight.freeze") or plain_key.startswith("dataset.")):
        return argument
    if not value and plain_key in (*PATHS, *DATASET_PATHS):
        raise InputError(f"{argument}: the path is empty; give one, or leave {key}= out")
    if re.fullmatch(r"-?[\d.]+", value) and plain_key in (*PATHS, *DATASET_PATHS):  # a folder may be called 2024
        return f"{key}='{value}'"
    if re.fullmatch(r"[\w./\\-]*", value) or re.fullmatch(r"""(['"]).*\1|\$\{.*\}""", value):
        return argument
    if not Path(value).exists() and (value[0] in "[{" or (sweeping and re.search(r",|^\w+\(.*\)$", value))):
        return argument
    # Backslashes need doubling before a quote and at the end; nowhere else.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{key}='{escaped}'"


def instantiate(config: Any, **arguments: Any) -> Any:
    """The object that a configuration names; lists and dicts arrive as Python's own.

    For configurations that the user wrote. One that was read from a file goes through `checked` first.

    Raises:
        InputError: the class refuses its arguments, or does not exist; or one is not of the plain type that the class says.
    """
    _check_types(OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config)
    try:
        return hydra.utils.instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        target = config.get("_target_", "?") if isinstance(config, Mapping) else "?"
        reason = " ".join(str(cause or error).split())
        raise InputError(f"{target}: {reason}; correct its configuration") from error


def _check_types(node: Any) -> None:
    """Refuse what a class would take for something else: the text 'no' is true, and true is the number 1."""
    for child in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        _check_types(child)
    if not isinstance(node, Mapping) or not isinstance(target := node.get("_target_"), str):
        return
    try:
        part = hydra.utils.get_object(target)
        hints = typing.get_type_hints(part.__init__ if isinstance(part, type) else part)
    except Exception:  # no such class, which Hydra says better; or its annotations name what is not imported
        return
    for key in hints.keys() & node.keys():
        union = typing.get_origin(hints[key]) in (typing.Union, types.UnionType)
        # No configuration holds a tensor, which torch's optimisers take as well.
        kinds = [kind for kind in (typing.get_args(hints[key]) if union else (hints[key],)) if not _is_tensor(kind)]
        judged = kinds and all(kind in _PLAIN or _is_contract(kind) for kind in kinds)
        if judged and not any(_is_of(kind, node[key]) for kind in kinds):
            rule = " or ".join(text for kind, text in _PLAIN.items() if kind in kinds) or "its values, _target_ among them"
            raise InputError(f"{target.rpartition('.')[2]}: {key}={node[key]}; give {rule}")


def _is_tensor(kind: Any) -> bool:
    return (getattr(kind, "__module__", ""), getattr(kind, "__name__", "")) == ("torch", "Tensor")


def _is_contract(kind: Any) -> bool:
    return getattr(kind, "__module__", "") == "videogn.types"


def _is_of(kind: type, value: Any) -> bool:
    if _is_contract(kind):
        return not isinstance(value, (*_PLAIN, list))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def prepared_dataset(config: DictConfig) -> Any:
    """The data set of the group `dataset`, its files made if it makes them, without the keys that every data set has."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    dataset = instantiate({key: value for key, value in values.items() if key not in _OF_EVERY_DATASET})
    if hasattr(dataset, "prepare"):
        dataset.prepare()
    return dataset


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dicts, lists, str, int, float, bool and None, interpolations replaced by values."""
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # pyright: ignore[reportReturnType]
    except OmegaConfBaseException as error:
        raise InputError(f"configuration: {' '.join(str(error).split())}") from error


def checked(config: Any, place: str, needed: Iterable[str] = ()) -> DictConfig:
    """A configuration read from a checkpoint or an artifact, once every class that it names is on the allow-list.

    Allowed are the classes that the conf/ folders name (the package's, and ./conf of the working directory), and torch's
    optimisers and schedules and Lightning's callbacks and loggers. Nothing is imported to find out.

    Args:
        needed: keys without which it is of no use.

    Raises:
        InputError: another class is named, a needed key is missing, or the configuration is not plain data.
    """
    if not isinstance(config, dict):
        raise InputError(f"{place}: its configuration is not a mapping; it was not written by videogn")
    allowed = conf_targets()
    for key, value in leaves(config):
        if "_target_" in key:
            if not isinstance(value, str) or not (value in allowed or _LIBRARY_TARGET.fullmatch(value)):
                raise InputError(
                    f"{place}: its configuration names {value!r} under {'.'.join(map(str, key))}, which no file of conf/ does; "
                    "nothing was run. If the class is yours, name it in ./conf of the working directory"
                )
        elif isinstance(value, str) and "${" in value:
            raise InputError(f"{place}: {'.'.join(map(str, key))}={value!r} is an interpolation; a stored configuration has none")
    for key in needed:
        if key not in config:
            raise InputError(f"{place}: its configuration has no {key}; it is damaged or of another version of videogn")
    unknown = sorted(str(key) for key in config if key in ("hydra", "defaults"))
    if unknown:
        raise InputError(f"{place}: its configuration has the key {unknown[0]!r}; it was not written by videogn")
    return OmegaConf.create(config)


def conf_targets() -> frozenset[str]:
    """Every `_target_` in the conf/ folders on the search path."""
    return group_targets("")


def group_targets(group: str) -> frozenset[str]:
    """Every `_target_` in the files of a group."""
    pattern = re.compile(r"""_target_:\s*['"]?([\w.]+)""")
    folders = {CONF / group, Path.cwd() / "conf" / group}
    files = (file for folder in folders for file in folder.rglob("*.yaml"))
    return frozenset(target for file in files for target in pattern.findall(file.read_text(encoding="utf-8")))


def nearest(word: str, words: Iterable[str]) -> str:
    """'; nearest: ...' for an error message, or nothing."""
    close = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(close)}" if close else ""


def _one_line(name: str, error: Exception, overrides: Sequence[str]) -> str:
    """What came, the rule and the remedy, for an error of Hydra's."""
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: not one of {', '.join(error.options)}{nearest(choice, error.options)}"
    text = " ".join(str(error).split())
    if match := re.search(r"Could not append to config. An item is already at '([^']+)'", text):
        return f"+{match[1]}: is in the configuration already; give it without the +"
    match = re.search(r"Could not override '([^']+)'", text) or re.search(r"[Kk]ey '([^']+)' is not in struct", text)
    if match is None:
        match = re.search(r"Could not (?:override|append|find|delete) '?([\w./@]+)'?", text)
    if match is not None:
        key = match[1]
        keys = {".".join(map(str, path[:depth])) for path, _ in leaves(_defaults(name)) for depth in range(1, len(path) + 1)}
        near = "; what is chosen for its group has none" if key in keys else nearest(key, keys | _groups())
        return f"{key}: no such key or group in conf/{name}.yaml{near}; `videogn {name} --help` lists them"
    return f"{text} (command line: {' '.join(overrides)})" if overrides else text


def _defaults(name: str) -> Any:
    return OmegaConf.to_container(compose(name), resolve=False)


def _groups() -> set[str]:
    return {folder.relative_to(CONF).as_posix() for folder in CONF.rglob("*") if folder.is_dir()}


class _UserConf(SearchPathPlugin):
    """`./conf` of the working directory is searched before the package's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        local = Path.cwd() / "conf"
        if local.is_dir() and local.resolve() != CONF.resolve():
            search_path.prepend("working-directory", f"file://{local}")
