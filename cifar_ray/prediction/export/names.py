"""Names of files and folders made of anybody's text, for any file system."""

import hashlib
import re
import unicodedata

MAX_BYTES = 120
"""Below what any file system takes, with room for what is added."""
_FORBIDDEN = re.compile(r'[<>:"/\\|?*%]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Devices of Windows, whatever follows the dot."""


def safe_name(text: str) -> str:
    """Return a file's name for a text; what had to be altered carries a digest of the text.

    So two texts never get the same name because of what was altered.
    """
    stem, extension = _split(text)
    kept = _cut(_clean(stem), MAX_BYTES) + extension
    if kept == text and not _RESERVED.fullmatch(text):
        return kept
    return with_digest(kept, text)


def with_digest(name: str, text: str) -> str:
    """Return a name with eight digits of the digest of a text before its extension."""
    stem, extension = _split(name)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{stem}-{digest}{extension}"


def same_name(name: str) -> str:
    """Return what names share that a file system of Windows or Apple cannot tell apart."""
    return unicodedata.normalize("NFC", name).casefold()


class FolderNames:
    """Folders for labels: each label has one, and no two share one."""

    def __init__(self) -> None:
        """No label is named yet."""
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()

    def of(self, label: str) -> str:
        """Return a label's folder."""
        if label not in self.names:
            name = safe_name(label)
            if same_name(name) in self.taken:
                name = with_digest(name, label)
            self.taken.add(same_name(name))
            self.names[label] = name
        return self.names[label]


def _split(text: str) -> tuple[str, str]:
    stem, dot, extension = text.rpartition(".")
    if stem and extension.isascii() and extension.isalnum() and len(extension) <= 5:
        return stem, dot + extension
    return text, ""


def _clean(text: str) -> str:
    safe = "".join(char if char.isprintable() else "_" for char in text)
    # At the end, Windows drops dots and blanks; at the beginning, dots and dashes have a meaning.
    safe = _FORBIDDEN.sub("_", safe).rstrip(". ").lstrip(".- ")
    return safe or "_"


def _cut(text: str, size_bytes: int) -> str:
    return text.encode()[:size_bytes].decode(errors="ignore")
