"""What S3 failures mean: ``InputError`` for what the user can change, else ``StorageError``."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3.exceptions
import botocore.exceptions
import urllib3.exceptions

from i2l_model.errors import InputError
from jobs.away import ServerAway
from jobs.storage.uris import missing

MISSING_OBJECT = ("404", "NoSuchKey", "NotFound")
_REFUSED = (
    "401",
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationError",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "Unauthorized",
)
_ELSEWHERE = (
    "301",
    "307",
    "308",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
)
_WANTS_PLAIN_BODY = ("411", "MissingContentLength", "XAmzContentSHA256Mismatch")
# Servers that know no checksum trailers answer with various codes, but name what they stumble on.
_TRAILER = re.compile(r"trailer|aws-chunked|x-amz-(content-sha256|sdk-checksum|checksum)", re.I)
_CHECKSUM_FIX = (
    "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
    "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
)
_LATER = "run the command again, or raise AWS_MAX_ATTEMPTS"


class StorageError(OSError):
    """A storage server failed, after retries; the message is one line."""


@contextmanager
def s3_errors(uri: str | Path) -> Iterator[None]:
    """Raise the failures of requests for ``uri`` as ``InputError`` or ``StorageError``."""
    try:
        yield
    except (boto3.exceptions.S3UploadFailedError, boto3.exceptions.RetriesExceededError) as error:
        raise translated(uri, error.__context__ or error) from error
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise translated(uri, error) from error
    except urllib3.exceptions.HTTPError as error:
        raise translated(uri, error) from error


def error_code(error: botocore.exceptions.ClientError) -> str:
    """The server's code, e.g. "NoSuchKey"; the HTTP status where the answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def translated(uri: str | Path, error: BaseException) -> Exception:
    """The error to raise for a failed request for ``uri``."""
    if isinstance(error, botocore.exceptions.ClientError):
        return _of_answer(uri, error)
    if isinstance(error, (botocore.exceptions.CredentialRetrievalError, *_NO_CREDENTIALS)):
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return InputError("uri", uri, f"needs credentials ({_line(error)})", fix)
    if isinstance(error, _UNREACHABLE):
        fix = "check AWS_ENDPOINT_URL and that the server runs"
        return ServerAway("uri", uri, f"cannot be reached ({_line(error)})", fix)
    if isinstance(error, botocore.exceptions.ParamValidationError):
        return InputError("uri", uri, f"is no S3 name ({_line(error)})", "write s3://BUCKET/PATH")
    if isinstance(error, botocore.exceptions.FlexibleChecksumError):
        fix = "if it persists, set AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
        return StorageError(f"{uri} came with other bytes than its checksum says; {fix}")
    return StorageError(f"{uri} failed after retries ({_line(error)}); {_LATER}")


_NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.TokenRetrievalError,
)
_UNREACHABLE = (
    botocore.exceptions.EndpointConnectionError,
    botocore.exceptions.ConnectTimeoutError,
    botocore.exceptions.ProxyConnectionError,
    botocore.exceptions.SSLError,
)


def _of_answer(uri: str | Path, error: botocore.exceptions.ClientError) -> Exception:
    code, answer = error_code(error), error.response
    message = str(answer.get("Error", {}).get("Message", ""))
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    said = f"{code} {message}".strip() or "no reason given"
    if code in MISSING_OBJECT:
        return missing(uri)
    if code == "NoSuchBucket":
        return InputError("uri", uri, "names a missing bucket", "create it or correct the URI")
    if code in _REFUSED:
        fix = "check the AWS credentials and what they may do in this bucket"
        return InputError("uri", uri, f"was refused by the server ({_line(said)})", fix)
    if code in _ELSEWHERE:
        region = headers.get("x-amz-bucket-region") or answer.get("Error", {}).get("Region")
        fix = f"set AWS_REGION={region}" if region else "set AWS_REGION to its region"
        return InputError("uri", uri, f"lies in another region ({_line(said)})", fix)
    if code in _WANTS_PLAIN_BODY or _TRAILER.search(message):
        problem = f"is on a server that refuses checksum trailers ({_line(said)})"
        return InputError("uri", uri, problem, _CHECKSUM_FIX)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == 429 or status >= 500:
        return StorageError(f"{uri} failed after retries ({_line(said)}); {_LATER}")
    return StorageError(f"{uri} was not accepted by the server ({_line(said)})")


def _line(text: object, limit: int = 240) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
