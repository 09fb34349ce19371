"""What the bot does with each message."""

import base64
import logging
from collections.abc import Sequence
from typing import Any

from telegram import Message, Update
from telegram.constants import ChatAction
from telegram.error import TelegramError
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

from cifar_ray.bot import texts
from cifar_ray.bot.allowance import Allowance
from cifar_ray.bot.client import ServiceAway, ServiceClient, ServiceRefused
from cifar_ray.bot.pictures import Albums, LastPictures, Picture, picture_of
from cifar_ray.config.bot import BotSettings

Context = ContextTypes.DEFAULT_TYPE
MOVING = filters.ANIMATION | filters.VIDEO | filters.VIDEO_NOTE | filters.Document.VIDEO
PRIVATE = filters.ChatType.PRIVATE
"""In groups people talk to each other: there only pictures and commands are answered."""
logger = logging.getLogger(__name__)


class Handlers:
    """The bot's answers; `add_to` connects them."""

    def __init__(self, settings: BotSettings, client: ServiceClient) -> None:
        self._client = client
        self._allowance = Allowance(settings.images_per_minute)
        self._albums = Albums(self._answer)
        self._last = LastPictures()

    def add_to(self, application: Application[Any, Any, Any, Any, Any, Any]) -> None:
        """Register a handler for every kind of message."""
        pictures = filters.PHOTO | (filters.Document.IMAGE & ~filters.ANIMATION)
        explained = pictures & filters.CaptionRegex(r"^/explain\b")
        application.add_handlers(
            [
                CommandHandler("start", self.start),
                CommandHandler("help", self.help),
                CommandHandler("model", self.model),
                CommandHandler("explain", self.explain),
                MessageHandler(explained, self.explain),
                MessageHandler(pictures, self.picture),
                _saying(PRIVATE & filters.COMMAND, texts.UNKNOWN_COMMAND),
                _saying(PRIVATE & filters.Sticker.ALL, texts.STICKER),
                _saying(PRIVATE & MOVING, texts.MOVING),
                _saying(PRIVATE & filters.Document.ALL, texts.NOT_AN_IMAGE_FILE),
                _saying(PRIVATE & ~filters.StatusUpdate.ALL, texts.NO_IMAGE),
            ]
        )
        application.add_error_handler(self.failed)

    async def start(self, update: Update, _: Context) -> None:
        """Greet."""
        await _reply(update.message, texts.START)

    async def help(self, update: Update, _: Context) -> None:
        """Say what the bot can do."""
        await _reply(update.message, texts.HELP)

    async def model(self, update: Update, _: Context) -> None:
        """Say what the model knows."""
        try:
            said = texts.about(await self._client.model())
        except ServiceAway:
            said = texts.AWAY
        except ServiceRefused as error:
            said = str(error)
        await _reply(update.message, said)

    async def picture(self, update: Update, _: Context) -> None:
        """Label a picture, or gather an album and label it."""
        message = update.message
        if message is None:
            return
        if message.media_group_id:
            await self._albums.add(message.media_group_id, message)
        else:
            await self._answer([message])

    async def _answer(self, messages: Sequence[Message]) -> None:
        first = messages[0]
        pictures = [picture for message in messages if (picture := picture_of(message))]
        self._last.put(first.chat_id, pictures[-1])
        refusal = self._refusal(first, pictures)
        if refusal:
            await _reply(first, refusal)
            return
        await first.reply_chat_action(ChatAction.TYPING)
        try:
            images = [await _download(first, picture) for picture in pictures]
            said = texts.answer(await self._client.label(images))
        except ServiceAway:
            said = texts.AWAY
        except ServiceRefused as error:
            said = str(error)
        await _reply(first, said)

    async def explain(self, update: Update, _: Context) -> None:
        """Show where the model looked: in this picture, the answered one, or the chat's last."""
        message = update.message
        if message is None:
            return
        picture = picture_of(message) or picture_of(message.reply_to_message)
        picture = picture or self._last.get(message.chat_id)
        if picture is None:
            await _reply(message, texts.EXPLAIN_WHAT)
            return
        self._last.put(message.chat_id, picture)
        refusal = self._refusal(message, [picture])
        if refusal:
            await _reply(message, refusal)
            return
        await message.reply_chat_action(ChatAction.UPLOAD_PHOTO)
        try:
            image = await _download(message, picture)
            (result,) = await self._client.label([image], explain=True)
        except ServiceAway:
            await _reply(message, texts.AWAY)
        except ServiceRefused as error:
            await _reply(message, str(error))
        else:
            if result.explanation is None:
                await _reply(message, texts.answer([result]))
                return
            png = base64.b64decode(result.explanation.partition(",")[2])
            await message.reply_photo(png, caption=texts.explained(result), do_quote=True)

    def _refusal(self, message: Message, pictures: Sequence[Picture]) -> str | None:
        if any(picture.size_bytes > texts.MAX_FILE_BYTES for picture in pictures):
            return texts.TOO_LARGE
        user = message.from_user.id if message.from_user else message.chat_id
        wait_s = self._allowance.take(user, len(pictures))
        return texts.slow_down(wait_s) if wait_s else None

    async def failed(self, update: object, context: Context) -> None:
        """Log what went wrong by its kind alone, and tell the user that something did."""
        error = context.error
        logger.error("%s while answering", type(error).__name__)
        if isinstance(update, Update) and update.message and not isinstance(error, TelegramError):
            await _reply(update.message, texts.FAILED)


def _saying(wanted: filters.BaseFilter, text: str) -> MessageHandler[Any, Any]:
    async def say(update: Update, _: Context) -> None:
        await _reply(update.message, text)

    return MessageHandler(wanted, say)


async def _download(message: Message, picture: Picture) -> bytes:
    file = await message.get_bot().get_file(picture.file_id)
    return bytes(await file.download_as_bytearray())


async def _reply(message: Message | None, text: str) -> None:
    if message is not None:
        await message.reply_text(text, do_quote=True)
