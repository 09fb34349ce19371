"""What the engine asks of a store of images: what is in it, in order, and the bytes of each.

A file is listed if its extension is an image's, unknown, or absent. Hidden files, names that begin
with `_` and known other kinds are skipped and counted, so that found == listed + skipped.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import ImageFault

_OTHER_KINDS = """
    video and sound: .mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp .mp3 .m4a .wav .flac
        .ogg .aac
    text, data, code: .txt .md .rst .csv .tsv .json .jsonl .ndjson .xml .yaml .yml .toml .ini .cfg
        .conf .log .html .htm .css .js .ts .py .ipynb .sh .c .h .cpp .java .go .rs .sql .pdf .doc
        .docx .xls .xlsx .ppt .pptx .odt .ods .rtf .tex
    databases, arrays: .db .sqlite .sqlite3 .lmdb .mdb .parquet .arrow .feather .orc .avro .tfrecord
        .h5 .hdf5 .npy .npz .mat .pkl .pickle .pt .pth .onnx .safetensors .bin
    archives: .zip .tar .gz .tgz .bz2 .xz .zst .7z .rar .iso .dmg
    sidecars, programs, what editors leave: .xmp .thm .aae .lnk .url .bak .tmp .part .crdownload
        .exe .dll .so .dylib .class .jar
    beside the images of a WebDataset: .cls .cls2 .id .idx .index .inx .jsn .text .transcript
        .caption .pyd .pickle .ten .tb .mp .msg .msgpack .cbor
"""
OTHER_KINDS = frozenset(word for word in _OTHER_KINDS.split() if word.startswith("."))
HIDDEN = (".", "_")
"""The first character of a name that is hidden or set apart."""
FOLDER_MARKERS = ("/", "_$folder$")
"""What consoles, s3fs and Hadoop leave in a bucket where a user made a folder."""
DOT_SEGMENTS = frozenset({".", ".."})
"""Clients of buckets resolve them on the way, so that such keys cannot be read."""
MAX_IMAGE_BYTES = 512 * 2**20
UNKNOWN_SIZE = -1
GONE = "0-0"
"""Version of a file that is not there, or no longer: the reader says so in its row."""


class Entry(NamedTuple):
    """One listed image: a tuple, for it is made twice for each image of a store.

    `locator` is what opens it where the key does not, such as the raw path of a name that is not
    UTF-8. `position` is where the listing stands behind it, where the key does not say that.
    `carried` are the values of the columns that the run carries from SOURCE into its rows.
    """

    key: str
    version: str
    size_bytes: int
    """`UNKNOWN_SIZE` where only reading the image tells."""
    locator: bytes | None = None
    position: str | None = None
    carried: tuple[object, ...] = ()

    @property
    def cursor(self) -> str:
        """Where a listing goes on behind this image."""
        return self.key if self.position is None else self.position


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not labelled, and the kind under which it is counted."""

    kind: str


@dataclass(frozen=True, slots=True)
class Boundary:
    """A shard ends here, though it may not be full: what follows lies in another container."""


ListedItem = Entry | Skipped | Boundary


class Listing(Protocol):
    """A store, or a range of it, that can be listed in order, from any point on."""

    def entries(self, after: str | None) -> Iterator[ListedItem]:
        """Yield what lies behind the cursor `after` in order; all of it with None.

        Raises `InputError` for what cannot be listed, `StoreUnavailable` if the store is gone.
        """


class TransientFault(ImageFault):
    """Reading failed in a way that may pass; the retry budget of this image is spent."""

    def __init__(self) -> None:
        super().__init__("fetch_failed", "the store did not give the file, after retries")


class Fetcher(Protocol):
    """Reads the images of a store; any number of threads may use one."""

    @property
    def parallel_reads(self) -> int:
        """How many reads at a time pay off in one process; 1 where reading ahead does not."""

    def fetch(self, entry: Entry) -> bytes:
        """Return the bytes; `ImageFault` with the row's status, or `StoreUnavailable`.

        `not_found` and `denied` are given only while a control read of the same store succeeds.
        """


class Source(Protocol):
    """A store of images."""

    @property
    def reference(self) -> SourceReference:
        """What stands of it in `run.json`."""

    def listing(self, range_number: int) -> Listing:
        """Return the listing of one of the reference's ranges."""

    def fetcher(self) -> Fetcher:
        """Return a reader, for one process."""

    def uri(self, entry: Entry) -> str:
        """Return the uri that opens an image."""


def skipped_kind(key: str, config: LabellingConfig) -> str | None:
    """Return the kind under which a key is skipped, or None if it is labelled."""
    if config.exclude and _matches(key, config.exclude):
        return "(excluded)"
    if config.include:
        return None if _matches(key, config.include) else "(not included)"
    return "(hidden)" if is_hidden(key) else other_kind(key)


def other_kind(key: str) -> str | None:
    """Return the extension of a known other kind; None for a file that is labelled.

    `key` may be a name alone. Neither it nor a folder in it begins with a dot, so that the last one
    is before the extension.
    """
    dot = key.rfind(".")
    if dot < 0:
        return None
    extension = key[dot:].lower()
    return extension if extension in OTHER_KINDS else None


def skipped_folder_kind(key: str, config: LabellingConfig) -> str | None:
    """Return the kind under which all below a folder is skipped; None if some may be labelled.

    The key ends in `/`.
    """
    if _matches(key, config.exclude):
        return "(excluded)"
    return "(hidden)" if is_hidden(key) and not config.include else None


def is_hidden(key: str) -> bool:
    """Tell whether a file or a folder on the way to it is hidden, or set apart by a `_`."""
    return key.startswith(HIDDEN) or "/." in key or "/_" in key


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def skipped_object_kind(key: str, config: LabellingConfig) -> str | None:
    """Return what `skipped_kind` does, of an object in a bucket."""
    if not key or key.endswith(FOLDER_MARKERS):
        return "(folder marker)"
    if not DOT_SEGMENTS.isdisjoint(key.split("/")):
        return "(. or .. as a folder)"
    return skipped_kind(key, config)


def encode_key(raw: bytes) -> bytes:
    """Return a name as UTF-8; bytes of it that are not are percent-encoded."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="surrogateescape")
        return "".join(
            f"%{ord(char) - 0xDC00:02X}" if 0xDC80 <= ord(char) <= 0xDCFF else char for char in text
        ).encode()
    return raw
