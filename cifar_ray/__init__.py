"""Label a store of images, once and whole, into Parquet: on a laptop or on a Ray cluster.

The command line does the work; Python reads what it wrote:

    import cifar_ray

    rows = cifar_ray.read("labels")            # a pyarrow dataset: nothing is read yet
    rows.to_table(columns=["key", "label"]).to_pandas()

`read` and `__version__` are the public interface. What else the package holds may change.
"""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow.dataset

__version__ = "0.1.0"
__all__ = ["__version__", "read"]


def read(destination: "str | PathLike[str]") -> "pyarrow.dataset.Dataset":
    """Return the rows of a labelling run as a pyarrow dataset.

    `destination` is what `--out` named, a folder or `s3://BUCKET/PREFIX`. A run may still be at
    work: the dataset holds the parts that are there now, each of them whole, and no row twice.
    Raises `cifar_ray.errors.InputError` if there is no run.
    """
    # Imported here, so that `import cifar_ray` answers at once.
    from cifar_ray.prediction.reading import dataset

    return dataset(destination)
