"""All that the bot says. Plain text: a label's name is anybody's, and Telegram would format it."""

import math
from collections.abc import Sequence

from cifar_ray.bot.client import Model, Result
from cifar_ray.config.serving import Limits

MAX_FILE_BYTES = min(20 * 10**6, Limits().image_bytes)
"""What Telegram lets a bot download, and the service takes."""
MAX_FILE = f"{MAX_FILE_BYTES // 10**6} MB"
SHOWN_LABELS = 20
START = (
    "Hello! Send me a picture and I will tell you what I see in it, and how sure I am.\n\n"
    "Several at once are fine. /help says what else I can do."
)
HELP = (
    "Send a picture, as a photo or as a file (JPEG, PNG, WebP, GIF, BMP, TIFF; up to "
    f"{MAX_FILE}), or an album. You get the label, how sure I am, and the next two candidates.\n\n"
    "/explain – shows where I looked: answer a picture with it, give it as a picture's caption, or "
    "send it after a picture\n"
    "/model – what I know\n"
    "/help – this text"
)
NO_IMAGE = "I can only look at pictures. Send me one as a photo or as an image file."
NOT_AN_IMAGE_FILE = "This file is no picture that I read. JPEG, PNG or WebP will do."
MOVING = "I cannot watch things that move. Send me a still picture of it."
STICKER = "Nice one! But I know real pictures only. Send me a photo."
TOO_LARGE = f"This file is too large for me: I look at files of up to {MAX_FILE}."
UNKNOWN_COMMAND = "I do not know this command. /help lists mine."
EXPLAIN_WHAT = "Explain which picture? Send me one first, or answer one with /explain."
AWAY = "The service that looks at pictures does not answer at the moment. Try again in a minute."
FAILED = "Something went wrong on my side. Try again in a minute."
FAULTS = {
    "not_an_image": "This does not look like a picture.",
    "empty": "This file is empty.",
    "unsupported": "I cannot read this kind of picture. JPEG, PNG or WebP will do.",
    "truncated": "This picture is incomplete: its file ends too early.",
    "too_large": "This picture is too large for me.",
    "decode_failed": "This picture's file is damaged.",
}
NO_LABEL = "I could not make anything of this picture."


def answer(results: Sequence[Result]) -> str:
    """Say what is in a picture, or in each of an album."""
    if len(results) == 1:
        return _long(results[0])
    return "\n".join(f"{number}. {_short(result)}" for number, result in enumerate(results, 1))


def _long(result: Result) -> str:
    if result.status != "ok":
        return FAULTS.get(result.status, NO_LABEL)
    best, *others = result.top
    rough = "" if result.confidence is not None else " (not calibrated)"
    lines = [f"{best.label} – {percent(best.score)}{rough}"]
    if others:
        lines.append("Next: " + ", ".join(f"{o.label} {percent(o.score)}" for o in others))
    return "\n".join(lines)


def _short(result: Result) -> str:
    if result.status != "ok":
        return FAULTS.get(result.status, NO_LABEL)
    best, *others = result.top
    more = ", ".join(f"{other.label} {percent(other.score)}" for other in others)
    return f"{best.label} – {percent(best.score)}" + (f" ({more})" if more else "")


def explained(result: Result) -> str:
    """Say what an explanation's picture shows."""
    return f"What spoke for {result.top[0].label} ({percent(result.top[0].score)}) glows."


def about(model: Model) -> str:
    """Say what the model knows."""
    names = ", ".join(model.labels[:SHOWN_LABELS])
    more = len(model.labels) - SHOWN_LABELS
    right = f" It is right for {percent(model.accuracy)} of test images." if model.accuracy else ""
    return (
        f"I use {model.network}, trained on {model.trained_on}.{right} It knows {names}"
        + (f" and {more} more" if more > 0 else "")
        + ", and nothing else: everything looks like one of these to it."
    )


def slow_down(seconds: float) -> str:
    """Say that a user sends too much."""
    return f"That is a lot of pictures. Give me {math.ceil(seconds)} s, then send it again."


def percent(share: float) -> str:
    """Return a probability as people say it, never as a certainty."""
    if 0.99 < share < 1:
        return "> 99 %"
    return "< 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")
