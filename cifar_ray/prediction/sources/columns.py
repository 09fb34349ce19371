"""Columns of SOURCE that a run carries into its rows: which there are, and their types."""

import re
from collections.abc import Sequence

import pyarrow as pa

from cifar_ray.config.labelling import CarriedColumn
from cifar_ray.errors import InputError, did_you_mean, printable

_TYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float", "double", "string", "large_string", "binary", "large_binary", "date32[day]"),
    *(f"timestamp[{unit}]" for unit in ("s", "ms", "us", "ns")),
)
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]")


def arrow_type(text: str) -> pa.DataType:
    """Return the type that Arrow writes so; one of those that can be carried."""
    zoned = _ZONED.fullmatch(text)
    if zoned:
        return pa.timestamp(zoned[1], zoned[2])
    return pa.type_for_alias(text)


def carried_columns(
    names: Sequence[str], available: dict[str, pa.DataType], where: str
) -> tuple[CarriedColumn, ...]:
    """Check the columns that `--columns` asks for; `InputError` says what is wrong with one."""
    columns = []
    for name in names:
        if name not in available:
            raise InputError(
                f"--columns: {printable(where)} has no column {printable(name)}. "
                f"{printable(did_you_mean(name, available))}"
            )
        columns.append(CarriedColumn(name=name, type=_carried_type(name, available[name], where)))
    return tuple(columns)


def _carried_type(name: str, found: pa.DataType, where: str) -> str:
    if pa.types.is_dictionary(found):
        found = found.value_type
    text = str(found)
    if text not in _TYPES and not _ZONED.fullmatch(text):
        raise InputError(
            f"--columns: {printable(name)} of {printable(where)} is {text}, which is not carried. "
            f"Allowed are {', '.join(_TYPES)}, and timestamps with a zone."
        )
    return text
