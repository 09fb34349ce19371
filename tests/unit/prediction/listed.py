"""A source that is a list."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cifar_ray.config.labelling import SourceReference
from cifar_ray.prediction.sources import Entry, Fetcher, ListedItem


@dataclass
class ListedSource:
    """Its images have names and sizes, and no bytes."""

    items: list[ListedItem] | list[Entry]
    uri_: str = "/photos"
    reference: SourceReference = field(init=False)

    def __init__(self, items: list[ListedItem] | list[Entry], uri: str = "/photos") -> None:
        self.items = items
        self.reference = SourceReference(kind="folder", uri=uri)

    def listing(self, range_number: int) -> "ListedSource":
        return self

    def entries(self, after: str | None) -> Iterator[ListedItem]:
        yield from self.items

    def fetcher(self) -> Fetcher:
        raise NotImplementedError("nothing is read")

    def uri(self, entry: Entry) -> str:
        return f"{self.reference.uri}/{entry.key}"
