"""Every failure of a request is one line that says what to change, or that the server failed."""

from typing import Any

import botocore.exceptions
import pytest

from i2l_model.errors import InputError
from jobs.storage.s3_errors import StorageError, s3_errors


def answer(code: str, status: int, message: str = "", **headers: str) -> Exception:
    response: dict[str, Any] = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return botocore.exceptions.ClientError(response, "GetObject")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (answer("NoSuchKey", 404), InputError, "does not exist"),
        (answer("NoSuchBucket", 404), InputError, "missing bucket"),
        (answer("403", 403), InputError, "credentials"),
        (answer("InvalidAccessKeyId", 403), InputError, "credentials"),
        (answer("RequestTimeTooSkewed", 403), InputError, "refused"),
        (
            answer("301", 301, **{"x-amz-bucket-region": "eu-west-1"}),
            InputError,
            "AWS_REGION=eu-west-1",
        ),
        (answer("AuthorizationHeaderMalformed", 400), InputError, "AWS_REGION to its region"),
        (answer("MissingContentLength", 411), InputError, "_CHECKSUM_CALCULATION=when_required"),
        (
            answer("InvalidArgument", 400, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD"),
            InputError,
            "_CHECKSUM_CALCULATION=when_required",
        ),
        (
            answer("NotImplemented", 501, "A header implies STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            InputError,
            "_CHECKSUM_CALCULATION=when_required",
        ),
        (answer("SlowDown", 503), StorageError, "AWS_MAX_ATTEMPTS"),
        (answer("TooManyRequests", 429), StorageError, "AWS_MAX_ATTEMPTS"),
        (answer("XMinioStorageFull", 507, "out\nof space"), StorageError, "out of space"),
        (answer("KeyTooLongError", 400), StorageError, "KeyTooLongError"),
        (botocore.exceptions.NoCredentialsError(), InputError, "AWS_ACCESS_KEY_ID"),
        (
            botocore.exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9"),
            InputError,
            "check AWS_ENDPOINT_URL",
        ),
        (
            botocore.exceptions.ConnectTimeoutError(endpoint_url="http://127.0.0.1:9"),
            InputError,
            "check AWS_ENDPOINT_URL",
        ),
        (botocore.exceptions.ParamValidationError(report="bucket"), InputError, "no S3 name"),
        (
            botocore.exceptions.ReadTimeoutError(endpoint_url="http://127.0.0.1:9"),
            StorageError,
            "failed after retries",
        ),
        (
            botocore.exceptions.FlexibleChecksumError(error_msg="crc"),
            StorageError,
            "_CHECKSUM_VALIDATION=when_required",
        ),
        (
            botocore.exceptions.PaginationError(message="the same token"),
            StorageError,
            "failed after retries",
        ),
    ],
)
def test_failures(error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught, s3_errors("s3://bucket/x"):
        raise error
    assert words in str(caught.value)
    assert "s3://bucket/x" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_pass() -> None:
    for error in (KeyError("x"), OSError(28, "full"), InputError("a", 1, "is bad", "change it")):
        with pytest.raises(type(error)) as caught, s3_errors("s3://bucket/x"):
            raise error
        assert caught.value is error
