"""What a configuration's values must be, and how the command line's paths are read."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from videogn.configuration import instantiate, quoted
from videogn.types import InputError, Sampler

VALUES: list[Any] = [True, False, 0, 3, -1, 1.5, "no", "false", "3", "", None, [], [1], {}, {"a": 1}]
IS_OF = {
    "flag": lambda v: isinstance(v, bool),
    "count": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "text": lambda v: isinstance(v, str),
    "count_or_none": lambda v: v is None or (isinstance(v, int) and not isinstance(v, bool)),
    "number_or_flag": lambda v: isinstance(v, (int, float)),
    "contract": lambda v: isinstance(v, dict),
    # These say more than a plain type does, and judge for themselves.
    "choice": lambda v: True,
    "text_or_list": lambda v: True,
    "unsaid": lambda v: True,
}
RULES = {
    "flag": "true or false",
    "count": "a whole number",
    "number": "a number",
    "text": "a text",
    "count_or_none": "a whole number or null",
    "number_or_flag": "true or false or a number",
    "contract": "its values, _target_ among them",
}


NO_SAMPLER: Any = None


class Part:
    def __init__(
        self,
        flag: bool = False,
        count: int = 1,
        number: float = 1.0,
        text: str = "",
        count_or_none: int | None = None,
        number_or_flag: float | bool = 0.0,
        contract: Sampler = NO_SAMPLER,
        choice: Literal["a", "b"] = "a",
        text_or_list: str | list[str] = "",
        unsaid=None,  # pyright: ignore[reportMissingParameterType]
        inner: Any = None,
    ) -> None:
        self.values = {name: value for name, value in locals().items() if name != "self"}


TARGET = f"{__name__}.Part"


@pytest.mark.parametrize("name", IS_OF)
@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("place", ["alone", "partial", "inner", "listed"])
def test_an_argument_is_of_the_plain_type_that_its_class_says(name: str, value: Any, place: str) -> None:
    node = {"_target_": TARGET, name: value}
    config: Any = {
        "alone": node,
        "partial": {**node, "_partial_": True},  # of which nobody would see the arguments until it is called
        "inner": {"_target_": TARGET, "inner": node},
        "listed": {"_target_": TARGET, "inner": [{"a": node}]},
    }[place]
    if IS_OF[name](value):
        part = instantiate(OmegaConf.create(config))
        if place == "alone":
            assert part.values[name] == value
        return
    with pytest.raises(InputError) as caught:
        instantiate(OmegaConf.create(config))
    assert str(caught.value) == f"Part: {name}={value}; give {RULES[name]}"


def test_an_interpolation_is_judged_by_what_it_stands_for() -> None:
    config = OmegaConf.create({"on": "no", "part": {"_target_": TARGET, "flag": "${on}"}})
    with pytest.raises(InputError, match="Part: flag=no; give true or false"):
        instantiate(config.part)


@pytest.mark.parametrize("name", ["2024", "1.5", "-3", "007", ".."])
def test_a_path_may_look_like_a_number(name: str) -> None:
    keys = ["out", "resume", "checkpoint", "weight.path", "weight.cache", "dataset.root", "+dataset.exclude"]
    assert quoted([f"{key}={name}" for key in keys]) == [f"{key}='{name}'" for key in keys]
    assert quoted([f"seed={name}", "out=null"]) == [f"seed={name}", "out=null"]
