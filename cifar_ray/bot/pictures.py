"""Finds the picture in a message, and gathers the messages of an album."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from telegram import Message

ALBUM_PAUSE_S = 1.0
"""After so long without another message an album is whole; Telegram does not say how many come."""
MAX_CHATS = 1000


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that may be a picture."""

    file_id: str
    size_bytes: int


def picture_of(message: Message | None) -> Picture | None:
    """Return a message's picture, in the largest size that Telegram has; None without one."""
    if message is None:
        return None
    if message.photo:
        photo = message.photo[-1]
        return Picture(photo.file_id, photo.file_size or 0)
    document = message.document
    # A GIF comes as a moving picture with a document beside it.
    if document and not message.animation and (document.mime_type or "").startswith("image/"):
        return Picture(document.file_id, document.file_size or 0)
    return None


class Albums:
    """Gathers messages by album, and hands each album on when no more of it comes."""

    def __init__(self, whole: Callable[[list[Message]], Awaitable[None]]) -> None:
        self._whole = whole
        self._open: dict[str, list[Message]] = {}

    async def add(self, album: str, message: Message) -> None:
        """Add a message; the call for the first one of an album waits for the others."""
        gathered = self._open.get(album)
        if gathered is not None:
            gathered.append(message)
            return
        gathered = self._open[album] = [message]
        seen = 0
        while seen < len(gathered):
            seen = len(gathered)
            await asyncio.sleep(ALBUM_PAUSE_S)
        del self._open[album]
        await self._whole(sorted(gathered, key=lambda message: message.message_id))


class LastPictures:
    """The last picture of each chat, for a later /explain."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[int, Picture] = OrderedDict()

    def put(self, chat: int, picture: Picture) -> None:
        """Remember a chat's picture."""
        self._pictures.pop(chat, None)
        self._pictures[chat] = picture
        if len(self._pictures) > MAX_CHATS:
            self._pictures.popitem(last=False)

    def get(self, chat: int) -> Picture | None:
        """Return a chat's last picture."""
        return self._pictures.get(chat)
