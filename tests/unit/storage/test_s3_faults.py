from typing import Any

import pytest
from botocore import exceptions as boto
from urllib3.exceptions import ProtocolError

from cifar_ray.storage.s3_faults import FaultKind, explain, fault_of, is_transient


def answer(status: int, code: str) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "of AKIASECRET"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return boto.ClientError(response, "GetObject")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", FaultKind.MISSING),
        (404, "404", FaultKind.MISSING),
        (404, "NoSuchBucket", FaultKind.NO_BUCKET),
        (403, "AccessDenied", FaultKind.DENIED),
        (403, "403", FaultKind.DENIED),
        (403, "InvalidObjectState", FaultKind.ARCHIVED),
        (403, "SignatureDoesNotMatch", FaultKind.CREDENTIALS),
        (403, "RequestTimeTooSkewed", FaultKind.CREDENTIALS),
        (400, "ExpiredToken", FaultKind.CREDENTIALS),
        (412, "PreconditionFailed", FaultKind.PRECONDITION),
        (416, "InvalidRange", FaultKind.EMPTY_RANGE),
        (503, "SlowDown", FaultKind.TRANSIENT),
        (400, "RequestTimeout", FaultKind.TRANSIENT),
        (429, "", FaultKind.TRANSIENT),
        (599, "of a maker of its own", FaultKind.TRANSIENT),
        (501, "NotImplemented", FaultKind.OTHER),
        (400, "InvalidRequest", FaultKind.OTHER),
    ],
)
def test_an_answer_means_what_its_code_says_and_else_its_status(
    status: int, code: str, kind: FaultKind
) -> None:
    assert fault_of(answer(status, code)).kind is kind
    assert is_transient(answer(status, code)) is (kind is FaultKind.TRANSIENT)


def test_what_never_reached_the_store_is_told_apart() -> None:
    lost = [
        boto.EndpointConnectionError(endpoint_url="http://x"),
        boto.ReadTimeoutError(endpoint_url="http://x"),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        boto.ResponseStreamingError(error="reset"),
        ProtocolError("reset"),
        ConnectionResetError(),
    ]
    assert all(is_transient(error) for error in lost)
    for error in (boto.NoCredentialsError(), boto.SSOTokenLoadError(error_msg="x")):
        assert fault_of(error).kind is FaultKind.CREDENTIALS
    assert not is_transient(ValueError())


@pytest.mark.parametrize("kind", list(FaultKind))
def test_a_message_is_ours_and_names_place_and_code_alone(kind: FaultKind) -> None:
    fault = fault_of(answer(403, "SignatureDoesNotMatch"))
    fault.kind = kind
    told = explain(fault, "s3://images/\x1b[2J", "store.example:9000")
    assert "s3://images/" in told
    assert "\x1b" not in told
    assert "store.example:9000" in told
    assert "AKIASECRET" not in told


def test_a_code_that_is_text_of_the_store_is_not_repeated() -> None:
    assert fault_of(answer(400, "<script> AKIASECRET")).code == "HTTP 400"
