"""Search spaces: which fields of a training config a search may change, and to what.

    learning_rate = {log_uniform = [1e-4, 1e-1]}
    batch_size = {choice = [64, 128, 256]}
    augment.translate_px = {int_uniform = [0, 4]}
    label_smoothing = {uniform = [0.0, 0.2], steps = 4}      # `steps` is for grids

A field may be called by its last name where no other has the same.
"""

import itertools
import math
import tomllib
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from cifar_ray.config.distributions import RANGES, Choice, Distribution, Range
from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.config.training import TrainingConfig
from cifar_ray.errors import InputError, did_you_mean, printable

Parameters = dict[str, JsonValue]
"""Values by the full names of their fields."""
SAME_FOR_ALL = (
    "recipe",
    "seed",
    "validation_fraction",
    "test_fraction",
    "splits",
    "expected_accuracy",
    "minutes",
)
"""Fields, or groups of them, without which trials could not be compared on the same images."""
NUM_PROBED = 64
MAX_GRID = 10_000
NAMED = files("cifar_ray.config") / "named_spaces"


class Space(FrozenConfig):
    """Fields, by their full names, each with what it may be."""

    name: str
    fields: dict[str, Annotated[Distribution, Field(discriminator="kind")]] = Field(min_length=1)

    def sample(self, rng: Random) -> Parameters:
        """Draw a value for every field."""
        return {field: distribution.sample(rng) for field, distribution in self.fields.items()}

    def grid(self) -> list[Parameters]:
        """Return all combinations; `InputError` names a range without `steps`."""
        for field, distribution in self.fields.items():
            if isinstance(distribution, Range) and distribution.steps is None:
                raise InputError(
                    f"--space {printable(self.name)}: a grid needs to know how many values of "
                    f"{field} to take. Write `steps = 4` beside {distribution.kind}, or `choice`."
                )
        columns = [distribution.grid() for distribution in self.fields.values()]
        size = math.prod(map(len, columns))
        if size > MAX_GRID:
            raise InputError(
                f"--space {printable(self.name)}: the grid has {size:,} points, more than "
                f"{MAX_GRID:,}. Take fewer values, or --search random."
            )
        return [
            dict(zip(self.fields, values, strict=True)) for values in itertools.product(*columns)
        ]

    def explore(self, parameters: Parameters, rng: Random) -> Parameters:
        """Return parameters near to the given ones."""
        return {
            field: distribution.explore(parameters[field], rng)
            for field, distribution in self.fields.items()
        }


def get_space(name: str, config: TrainingConfig) -> Space:
    """Return a named space, or that of a TOML file, checked against the config it changes.

    Raises `InputError` that names the field and what is wrong with it.
    """
    path = Path(name).expanduser()
    if name in named_spaces():
        text = (NAMED / f"{name}.toml").read_text()
    elif path.is_file():
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--space {printable(name)} cannot be read: {error}.") from error
    else:
        near = did_you_mean(name, named_spaces())
        raise InputError(
            f"--space {printable(name)} is neither a file nor the name of a space. {near}"
        )
    return parse_space(name, text, config)


def named_spaces() -> list[str]:
    """Return the names of the spaces that come with the program."""
    return sorted(
        item.name.removesuffix(".toml") for item in NAMED.iterdir() if item.name.endswith(".toml")
    )


def parse_space(name: str, text: str, config: TrainingConfig) -> Space:
    """Read a space from TOML, and check that the config can hold what it gives."""
    where = f"--space {printable(name)}"
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {printable(str(error))}.") from error
    names = list(config.flat())
    fields: dict[str, Distribution] = {}
    for short, table in _distribution_tables(tables, where).items():
        field = _full_name(short, names, where)
        if field in fields:
            raise InputError(f"{where}: {field} stands there twice.")
        fields[field] = _distribution(f"{where}: {field}", table)
    if not fields:
        raise InputError(f"{where} names no field. Write `learning_rate = {{uniform = [0, 1]}}`.")
    space = Space(name=Path(name).stem, fields=fields)
    _check(space, config, where)
    return space


def apply(config: TrainingConfig, parameters: Parameters) -> TrainingConfig:
    """Return the config with these values; `ValidationError` if it cannot hold them."""
    values = config.model_dump()
    for field, value in parameters.items():
        *groups, leaf = field.split(".")
        place = values
        for group in groups:
            place = place[group]
        place[leaf] = value
    return TrainingConfig.model_validate(values)


def _distribution_tables(
    tables: dict[str, Any], where: str, prefix: str = ""
) -> dict[str, dict[str, Any]]:
    """Flatten groups of fields; what is left are tables such as `{choice = […]}`."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise InputError(
                f"{where}: {printable(prefix + name)} is {value!r}. Write what it may be, for "
                "example {choice = [1, 2]}; a value that is the same for all trials goes into "
                "--set."
            )
        if any(isinstance(deeper, dict) for deeper in value.values()) or not value:
            found |= _distribution_tables(value, where, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _full_name(name: str, names: list[str], where: str) -> str:
    ends = [full for full in names if name in (full, full.rpartition(".")[2])]
    if len(ends) > 1 and name not in ends:
        raise InputError(f"{where}: {name} may be {' or '.join(ends)}; write which.")
    if not ends:
        raise InputError(
            f"{where}: there is no field {printable(name)}. {did_you_mean(name, names)}"
        )
    field = name if name in ends else ends[0]
    if _within(field, SAME_FOR_ALL):
        raise InputError(
            f"{where}: {field} must be the same for all trials, or they could not be compared. "
            "Give it with --set."
        )
    return field


def _within(field: str, groups: tuple[str, ...]) -> bool:
    return any(field == group or field.startswith(group + ".") for group in groups)


def _distribution(where: str, table: dict[str, Any]) -> Distribution:
    kinds = sorted(set(table) - {"steps"})
    allowed = ("choice", *RANGES)
    if len(kinds) != 1 or kinds[0] not in allowed:
        wrong = next((kind for kind in kinds if kind not in allowed), "")
        hint = did_you_mean(wrong, allowed) if wrong else f"Allowed: {', '.join(allowed)}."
        raise InputError(
            f"{where}: give one of these, and with a range `steps` for grids; there is "
            f"{printable(', '.join(table)) or 'nothing'}. {hint}"
        )
    kind, value = kinds[0], table[kinds[0]]
    if not isinstance(value, list) or (kind != "choice" and len(value) != 2):
        raise InputError(
            f"{where}: {kind} = {value!r} must be a list"
            + ("." if kind == "choice" else " of two numbers: the least and the greatest.")
        )
    try:
        if kind == "choice":
            return Choice(values=tuple(value), **_steps(table))
        return Range.model_validate(
            {"kind": kind, "low": value[0], "high": value[1], **_steps(table)}
        )
    except ValidationError as error:
        raise InputError(f"{where}: {kind} = {value!r}: {_reason(error)}.") from error


def _steps(table: dict[str, Any]) -> dict[str, Any]:
    return {"steps": table["steps"]} if "steps" in table else {}


def _check(space: Space, config: TrainingConfig, where: str) -> None:
    """Try every field's outermost values alone, and some combinations of all fields."""
    for field, distribution in space.fields.items():
        for value in distribution.probes():
            try:
                apply(config, {field: value})
            except ValidationError as error:
                # A fault in another place may be mended by the other fields.
                if ".".join(map(str, error.errors()[0]["loc"])).startswith(field):
                    raise InputError(
                        f"{where}: {field} cannot be {value!r}: {_reason(error)}."
                    ) from error
    rng = Random(0)
    for _ in range(NUM_PROBED):
        check_parameters(config, space.sample(rng), where)


def check_parameters(config: TrainingConfig, parameters: Parameters, where: str) -> None:
    """Raise `InputError` if the config cannot hold these values together."""
    try:
        apply(config, parameters)
    except ValidationError as error:
        raise InputError(
            f"{where}: {describe(parameters)} do not go together: {_reason(error)}."
        ) from error


def describe(parameters: Parameters) -> str:
    """Return parameters in one line."""
    return ", ".join(f"{field}={show(value)}" for field, value in parameters.items())


def show(value: JsonValue) -> str:
    """Return a value as a table shows it: numbers with four digits that count."""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _reason(error: ValidationError) -> str:
    return printable(error.errors()[0]["msg"].removeprefix("Value error, ").rstrip("."))
