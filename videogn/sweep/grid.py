"""Every combination of the values on the command line."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from videogn.configuration import instantiate


def sweep(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    overrides: list[str],
    check: Callable[[DictConfig], None],
) -> None:
    """Hand every combination to the launcher of `hydra/launcher=`.

    As Hydra's basic sweeper, but nothing is written: every job is composed and given to `check` before the first begins.
    Hydra takes plugins from a package hydra_plugins only, and we put nothing but videogn into site-packages, so our launcher
    is built here.
    """
    if str(config.hydra.launcher._target_).startswith("videogn."):
        launcher = instantiate(config.hydra.launcher)
        launcher.setup(hydra_context=context, task_function=task, config=config)
    else:
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    jobs = combinations(context, overrides)
    for job in jobs:
        check(context.config_loader.load_sweep_config(config, job))
    launcher.launch(jobs, initial_job_idx=0)


def combinations(context: HydraContext, overrides: list[str]) -> list[list[str]]:
    """The command line of every job, the last key varying fastest."""
    choices = []
    for override in OverridesParser.create(config_loader=context.config_loader).parse_overrides(overrides):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        elif override.is_delete():
            choices.append([str(override.input_line)])
        else:
            choices.append([f"{key}={override.get_value_element_as_str()}"])
    return [list(job) for job in itertools.product(*choices)]
