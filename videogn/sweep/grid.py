"""Every combination of the values on the command line."""

from __future__ import annotations

import itertools
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Grid(Sweeper):
    """Hydra's basic sweep, but nothing is written: every job is composed before the launcher makes a folder."""

    def __init__(self) -> None:
        self._launcher: Launcher | None = None
        self._context: HydraContext | None = None
        self._config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        assert self._launcher is not None
        assert self._context is not None
        assert self._config is not None
        overrides = OverridesParser.create(config_loader=self._context.config_loader).parse_overrides(arguments)
        choices = []
        for override in overrides:
            key = override.get_key_element()
            if override.is_sweep_override():
                choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
            elif override.is_delete():
                choices.append([override.input_line or f"~{key}"])
            else:
                choices.append([f"{key}={override.get_value_element_as_str()}"])
        jobs = [list(job) for job in itertools.product(*choices)]
        for job in jobs:
            self._context.config_loader.load_sweep_config(self._config, job)
        return self._launcher.launch(jobs, initial_job_idx=0)
