"""Reads a request's images, and never more of them than is allowed."""

import json
from collections.abc import AsyncGenerator

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from cifar_ray.config.serving import MIB, Limits
from cifar_ray.errors import ImageFault
from cifar_ray.serving.problems import Problem

Upload = bytes | ImageFault
MAX_JSON_BYTES = MIB
MAX_URL_CHARACTERS = 2048
MAX_TEXT_FIELDS = 16
"""Of a form; they are read and not used."""
BAD_FORM = (FormParserError, LookupError, UnicodeError, ValueError)
"""What the parser lets through for headers and boundaries that are not as they should be."""


async def read_form(request: Request, limits: Limits) -> list[Upload]:
    """Return the files of a multipart form, in order; large ones pass through temporary files."""
    body = bounded(request, limits.request_bytes, "A request")
    parser = MultiPartParser(
        request.headers, body, max_files=limits.images, max_fields=MAX_TEXT_FIELDS
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise too_many(limits) from error
        raise _malformed() from error
    except BAD_FORM as error:
        raise _malformed() from error
    try:
        return await _files(form, limits)
    finally:
        await form.close()


async def _files(form: FormData, limits: Limits) -> list[Upload]:
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise Problem(400, "no_image", "The form has no file in it.")
    return [
        too_large_file() if (file.size or 0) > limits.image_bytes else await file.read()
        for file in files
    ]


async def read_raw(request: Request, limits: Limits) -> Upload:
    """Return a body that is an image itself."""
    body = b"".join([part async for part in bounded(request, limits.image_bytes, "An image")])
    if not body:
        raise Problem(400, "no_image", "The request has no body. Send an image.")
    return body


async def read_urls(request: Request, limits: Limits) -> list[str]:
    """Return the addresses in a body that is a JSON list of them."""
    body = b"".join([part async for part in bounded(request, MAX_JSON_BYTES, "A JSON body")])
    try:
        urls = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "bad_json", "The body is not JSON.") from error
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise Problem(400, "bad_json", 'Give a JSON list of URLs: ["https://…", …].')
    if len(urls) > limits.images:
        raise too_many(limits)
    if max(map(len, urls)) > MAX_URL_CHARACTERS:
        raise Problem(400, "bad_json", f"A URL may have {MAX_URL_CHARACTERS:,} characters.")
    return urls


async def bounded(request: Request, max_bytes: int, what: str) -> AsyncGenerator[bytes, None]:
    """Yield a request's body; `Problem` 413 as soon as it is known to be larger than that."""
    problem = Problem(413, "too_large", f"{what} may have {max_bytes / MIB:g} MiB.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise problem
    received = 0
    try:
        async for part in request.stream():
            received += len(part)
            if received > max_bytes:
                raise problem
            yield part
    except ClientDisconnect as error:
        raise Problem(400, "incomplete", "The request ended before its body did.") from error


def too_large_file() -> ImageFault:
    """Return what one of several files gets that alone would have been refused."""
    return ImageFault("too_large", "the file has more bytes than are allowed")


def too_many(limits: Limits) -> Problem:
    """Return what is said to more images than a request may have."""
    return Problem(413, "too_many_images", f"A request may have {limits.images} images.")


def _malformed() -> Problem:
    return Problem(400, "bad_form", "The body is not a multipart form with files in it.")
