"""What a run's resources cost: a small TOML that the user writes from a price list.

currency = "USD"
cpu_hour = 0.043          # a core
gpu_hour = 0.53
get_1000 = 0.0004         # reads
put_1000 = 0.005          # writes and listings
transfer_gb = 0.0         # 10^9 bytes of images, from the store to the workers
"""

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.errors import InputError, did_you_mean, printable


class Prices(FrozenConfig):
    """Prices; what is left out costs nothing."""

    currency: str = "USD"
    cpu_hour: float = Field(0.0, ge=0)
    """Of one core, as long as a worker has it."""
    gpu_hour: float = Field(0.0, ge=0)
    get_1000: float = Field(0.0, ge=0)
    put_1000: float = Field(0.0, ge=0)
    """Of writes and of listings, which stores charge alike."""
    transfer_gb: float = Field(0.0, ge=0)


def read_prices(path: Path) -> Prices:
    """Read a price table; `InputError` that names what is wrong in it."""
    where = f"--prices {printable(str(path))}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {printable(str(error))}.") from error
    for name in table:
        if name not in Prices.model_fields:
            hint = did_you_mean(name, Prices.model_fields)
            raise InputError(f"{where}: nothing has the price {printable(name)}. {hint}")
    try:
        return Prices.model_validate(table)
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        raise InputError(f"{where}: {name} = {fault['input']!r}: {fault['msg']}.") from error
