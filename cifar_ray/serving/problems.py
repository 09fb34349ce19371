"""Why a request gets no labels; one image that cannot be labelled is no problem, but a status."""

from collections.abc import Mapping


class Problem(Exception):
    """Answered with an HTTP status, a code for programs and a sentence for people.

    Neither may carry anything from inside the service, nor a name that the request brought.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


def busy(message: str, status: int = 429) -> Problem:
    """Return what is said when the same request may do better in a moment."""
    return Problem(status, "busy", message, {"Retry-After": "1"})
