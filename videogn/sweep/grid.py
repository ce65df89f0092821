"""Every combination of the values on the command line and in an experiment."""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from videogn.configuration import instantiate, prepared_dataset
from videogn.identity import config_hash, is_volatile
from videogn.sweep.job import Job
from videogn.sweep.ledger import keep_jobs, write_jobs
from videogn.sweep.run import run_jobs
from videogn.sweep.search import Search
from videogn.sweep.word import word_of
from videogn.types import InputError

_SWEEPS = Path("runs") / "sweep"


def sweep(
    arguments: Sequence[str],
    check: Callable[[DictConfig], None],
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    overrides: list[str],
) -> None:
    """Run every combination, each in a folder named by the hash of its configuration.

    As Hydra's basic sweeper, with four differences: every job is composed and given to `check` before the first begins; the
    command line replaces what an experiment varies (hydra.sweeper.params) in place of multiplying it; `cases` of an experiment
    are values that vary together; and a launcher of videogn's is built here, since Hydra takes plugins from a package
    hydra_plugins only, and we put nothing but videogn into site-packages.

    Args:
        arguments: the command line of videogn.
        check: raises InputError where a job cannot be.
        config: with the values that the sweep does not vary.
        overrides: the words of the command line that are values.
    """
    own = [word for word in overrides if not word.startswith("cases=")]  # of the multirun, and of no training
    words = combinations(context, own, _params(config), _cases(config), config.hydra.runtime.choices)
    compose = functools.partial(_composed, context, config, check)
    search = _search(config, words)
    if not str(config.hydra.launcher._target_).startswith("videogn."):
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        for job in words:
            compose(job)
        launcher.launch(words, initial_job_idx=0)
        return
    launcher = instantiate(config.hydra.launcher)
    folder = sweep_folder(config, overrides)
    command_line = shlex.join(["videogn", "train", *arguments])

    contents: dict[str, str] = {}

    def made(overrides: list[str]) -> Job:
        return job_of(compose(overrides), overrides, folder, contents)

    if search is not None:
        search.run(launcher, compose, made, words[0], folder, command_line)
        return
    jobs = [made(job) for job in words]
    check_apart(jobs)
    write_jobs(folder, jobs, command_line)
    try:
        run_jobs(launcher, jobs)
    finally:
        keep_jobs(folder, jobs)


def combinations(
    context: HydraContext,
    overrides: Sequence[str],
    params: Sequence[str] = (),
    cases: Sequence[Mapping[str, str]] = (),
    groups: Container[str] = (),
) -> list[list[str]]:
    """The command line of every job, the last key varying fastest.

    Args:
        overrides: of the command line; a key that stands in `params` or `cases` too is taken from here. But files of a group that
            every case names (`norm`) choose among the cases, whose other values belong to them.
        params: of an experiment, KEY=VALUES each.
        cases: of an experiment, words of values that vary together.
        groups: keys whose values are files of conf/.

    Raises:
        InputError: a file that no case has, where the cases have other values for each.
    """
    parser = OverridesParser.create(config_loader=context.config_loader)
    given = parser.parse_overrides(list(overrides))
    keys = {override.get_key_element().lstrip("+~") for override in given}
    own = [override for override in parser.parse_overrides(list(params)) if override.get_key_element() not in keys]
    choices = []
    for override in (*given, *own):
        key = override.get_key_element()
        if key in groups and cases and all(key in case for case in cases):
            swept = override.is_sweep_override()
            files = list(override.sweep_string_iterator()) if swept else [override.get_value_element_as_str()]
            if all(any(case[key] == file for case in cases) for file in files):
                cases = [case for case in cases if case[key] in files]
                keys.remove(key)
                continue
            _check_alone(key, files, cases)
        if override.is_sweep_override():
            choices.append([[f"{key}={value}"] for value in override.sweep_string_iterator()])
        elif override.is_delete():
            choices.append([[str(override.input_line)]])
        else:
            choices.append([[f"{key}={override.get_value_element_as_str()}"]])
    if cases:
        left = [[f"{key}={value}" for key, value in case.items() if key not in keys] for case in cases]
        choices.append([list(case) for case in dict.fromkeys(map(tuple, left))])
    return [list(itertools.chain(*job)) for job in itertools.product(*choices)]


def _check_alone(key: str, files: Sequence[str], cases: Sequence[Mapping[str, str]]) -> None:
    """Raises InputError: a file of no case would be trained with the values that belong to the others."""
    own = list(dict.fromkeys(case[key] for case in cases))
    for other in dict.fromkeys(other for case in cases for other in case if other != key):
        values = [{case.get(other) for case in cases if case[key] == file} for file in own]
        if all(len(of) == 1 for of in values) and len(set.union(*values)) > 1:
            new = ", ".join(file for file in files if file not in own)
            raise InputError(
                f"{key}={new}: no case of the experiment has it, and {other} follows {key} there; give {', '.join(own)}, or "
                f"cases=[{{{key}: {new}, {other}: ...}}]"
            )


def sweep_folder(config: DictConfig, overrides: Sequence[str]) -> Path:
    """runs/sweep/NAME: NAME is that of `sweep=`, of the experiment, or the keys that have several values."""
    if config.sweep is not None:
        return _SWEEPS / str(config.sweep)
    given = OverridesParser.create().parse_overrides(list(overrides))
    swept = [override.get_key_element() for override in given if override.is_sweep_override()]
    return _SWEEPS / (config.hydra.runtime.choices.get("experiment") or "_".join(swept) or "single")


def check_apart(jobs: Sequence[Job]) -> None:
    """Raises InputError: two jobs of one name, which say of one training where it runs in two ways."""
    first: dict[Path, Job] = {}
    for job in jobs:
        other = first.setdefault(job.folder, job)
        both = (other.values, job.values)
        for key in dict.fromkeys(key for values in both for key in values if is_volatile(key)):
            if both[0].get(key) != both[1].get(key):
                shown = " and ".join(" ".join(one.overrides) for one in (other, job))
                raise InputError(
                    f"{shown}: are one training; {key} says where and how it runs, which is no part of it; give one value"
                )


def job_of(config: DictConfig, overrides: Sequence[str], folder: Path, contents: dict[str, str] | None = None) -> Job:
    """The job of a composed configuration; its data are written now, if it is data that we write: they are part of its name.

    Args:
        contents: see config_hash.
    """
    prepared_dataset(config.dataset)
    with open_dict(config):
        config.out = "<out>"  # where a job lies does not say what it is
    identity = config_hash(OmegaConf.to_container(config, resolve=True), contents)  # pyright: ignore[reportArgumentType]
    return Job(list(overrides), folder / identity)


def _composed(context: HydraContext, config: DictConfig, check: Callable[[DictConfig], None], overrides: list[str]) -> DictConfig:
    job = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        del job["hydra"]
    check(job)
    return job


def _search(config: DictConfig, words: list[list[str]]) -> Search | None:
    """Raises InputError: it is no search, it has no metrics.csv to read, or there are values to combine as well."""
    if config.get("search") is None:
        return None
    search = instantiate(config.search) if isinstance(config.search, DictConfig) else None
    if not isinstance(search, Search):
        raise InputError("search: give _target_: videogn.sweep.search.Search and its keys, as experiment=search_lr does, or null")
    if len(words) > 1:
        raise InputError(f"search: and {len(words)} combinations of other values; what varies stands in search.space alone")
    if not str(config.hydra.launcher._target_).startswith("videogn."):
        raise InputError("search: only our launchers say how a job ended; use hydra/launcher=process or submitit")
    loggers: Any = OmegaConf.to_container(config.logger) if config.get("logger") is not None else {}
    if not any(str((logger or {}).get("_target_")).endswith(".MetricsFile") for logger in loggers.values()):
        raise InputError("search: reads metrics.csv of its trials, and no logger writes it; give logger=csv")
    return search


def _params(config: DictConfig) -> list[str]:
    params: Any = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}))
    # A text is Hydra's grammar already: '2,4,8' are three values.
    return [f"{key}={value if isinstance(value, str) else word_of(value)}" for key, value in params.items()]


def _cases(config: DictConfig) -> list[dict[str, str]]:
    cases: Any = OmegaConf.to_container(config.cases) if config.get("cases") is not None else []
    if not isinstance(cases, list) or not all(isinstance(case, dict) and case for case in cases):
        raise InputError(f"cases={cases}: give a list of KEY: VALUE, such as [{{clip_length: 32, batch_size: 8}}], or null")
    return [{key: word_of(value) for key, value in case.items()} for case in cases]
