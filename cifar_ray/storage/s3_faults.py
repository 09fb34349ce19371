"""What an error of an S3 store means: the one place that knows its codes.

Messages are ours throughout. Those of a store may name keys of access, requests and machines.
"""

import re
from enum import Enum, auto

from botocore import exceptions as boto
from urllib3 import exceptions as urllib3

from cifar_ray.errors import printable


class FaultKind(Enum):
    """What to do about it follows from this."""

    TRANSIENT = auto()
    """May pass: throttling, a fault of the server, a lost connection, a body cut short."""
    MISSING = auto()
    DENIED = auto()
    ARCHIVED = auto()
    PRECONDITION = auto()
    """If-Match or If-None-Match did not hold."""
    EMPTY_RANGE = auto()
    NO_BUCKET = auto()
    CREDENTIALS = auto()
    """None found, or refused: wrong, expired, or of a machine whose clock is off."""
    OTHER = auto()


_CODES = {
    FaultKind.TRANSIENT: """SlowDown Throttling ThrottlingException RequestLimitExceeded
        TooManyRequests BandwidthLimitExceeded InternalError ServiceUnavailable RequestTimeout
        RequestTimeoutException OperationAborted ConditionalRequestConflict 503SlowDown
        XMinioServerNotInitialized IncompleteBody BadDigest""",
    FaultKind.MISSING: "NoSuchKey NoSuchVersion NoSuchUpload",
    FaultKind.DENIED: "AccessDenied AllAccessDisabled AccountProblem KMS.DisabledException",
    FaultKind.ARCHIVED: "InvalidObjectState",
    FaultKind.PRECONDITION: "PreconditionFailed",
    FaultKind.EMPTY_RANGE: "InvalidRange",
    FaultKind.NO_BUCKET: "NoSuchBucket",
    FaultKind.CREDENTIALS: """ExpiredToken ExpiredTokenException TokenRefreshRequired InvalidToken
        InvalidAccessKeyId SignatureDoesNotMatch RequestTimeTooSkewed RequestExpired
        AuthorizationHeaderMalformed InvalidSecurity NotSignedUp InvalidClientTokenId
        UnrecognizedClientException""",
}
_KIND_BY_CODE = {code: kind for kind, codes in _CODES.items() for code in codes.split()}
_KIND_BY_HTTP_STATUS = {
    401: FaultKind.CREDENTIALS,
    403: FaultKind.DENIED,
    404: FaultKind.MISSING,
    408: FaultKind.TRANSIENT,
    412: FaultKind.PRECONDITION,
    416: FaultKind.EMPTY_RANGE,
    429: FaultKind.TRANSIENT,
}
_LOST = (boto.HTTPClientError, boto.ConnectionError, boto.ResponseStreamingError)
_LOST_BODY = (boto.IncompleteReadError, urllib3.HTTPError, ConnectionError, TimeoutError)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.RefreshWithMFAUnsupportedError,
    boto.MetadataRetrievalError,
)
S3_ERRORS = (boto.BotoCoreError, boto.ClientError, *_LOST_BODY)
"""All that a client of boto3 raises, its bodies included."""


class S3Fault(Exception):
    """A request that failed for good; `code` is the store's, or the name of what happened here."""

    def __init__(self, kind: FaultKind, code: str, retried: bool = False) -> None:
        super().__init__(kind, code, retried)
        self.kind = kind
        self.code = code
        self.retried = retried


def fault_of(error: BaseException) -> S3Fault:
    """Return what an error of boto3 means."""
    if isinstance(error, boto.ClientError):
        return _fault_of_answer(error)
    name = type(error).__name__
    if isinstance(error, _NO_CREDENTIALS):
        return S3Fault(FaultKind.CREDENTIALS, name)
    if isinstance(error, _LOST + _LOST_BODY):
        return S3Fault(FaultKind.TRANSIENT, name)
    return S3Fault(FaultKind.OTHER, name)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed a little later."""
    return isinstance(error, S3_ERRORS) and fault_of(error).kind is FaultKind.TRANSIENT


def _fault_of_answer(error: boto.ClientError) -> S3Fault:
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    metadata = answer.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    kind = _KIND_BY_CODE.get(code) or _KIND_BY_HTTP_STATUS.get(status)
    if kind is None:
        kind = FaultKind.TRANSIENT if status >= 500 and status != 501 else FaultKind.OTHER
    shown = code if re.fullmatch(r"[A-Za-z0-9.]{1,60}", code) else f"HTTP {status}"
    return S3Fault(kind, shown, retried=bool(metadata.get("RetryAttempts")))


def explain(fault: S3Fault, uri: str, endpoint: str) -> str:
    """Return what is wrong with a place in a store, and what to do."""
    uri, at = printable(uri), f"at {printable(endpoint)}"
    match fault.kind:
        case FaultKind.TRANSIENT:
            return f"{uri}: the store {at} does not answer as it should ({fault.code})."
        case FaultKind.NO_BUCKET:
            return f"{uri}: there is no such bucket {at}."
        case FaultKind.CREDENTIALS:
            return (
                f"{uri}: the store {at} got no credentials that it takes ({fault.code}). Check "
                "AWS_PROFILE or AWS_ACCESS_KEY_ID and the rest, and this machine's clock; "
                "AWS_NO_SIGN_REQUEST=YES reads a public bucket without any."
            )
        case FaultKind.DENIED:
            return (
                f"{uri}: the store {at} denies it ({fault.code}). Listing needs s3:ListBucket, "
                "reading s3:GetObject, writing s3:PutObject and s3:DeleteObject; a "
                "requester-pays bucket AWS_REQUEST_PAYER=requester."
            )
        case _:
            return f"{uri}: the store {at} refuses the request ({fault.code})."
