"""The environment of every page that this project writes, and how its numbers are shown.

What stands in a page is other people's text, from file names to labels: it is escaped, and
`printable` makes its control characters visible.
"""

from jinja2 import Environment, PackageLoader, StrictUndefined

from cifar_ray.errors import printable


def page_environment(package: str) -> Environment:
    """Return the environment of the templates in a package's `templates/`."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = lambda text: printable(str(text))
    environment.filters["number"] = lambda number: f"{number:,}"
    environment.filters["percent"] = percent
    return environment


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as per cent, never rounded to 0 % or 100 % if it is neither."""
    if share is None:
        return "–"
    least = 10.0 ** -(digits + 2)
    if 0 < share < least:
        shown = f"< {least:.{digits}%}"
    elif 1 - least < share < 1:
        shown = f"> {1 - least:.{digits}%}"
    else:
        shown = f"{share:.{digits}%}"
    return shown.replace("%", " %")
