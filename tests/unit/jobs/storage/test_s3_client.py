"""The client follows the usual AWS variables."""

from pathlib import Path

import pytest

from i2l_model.errors import InputError
from jobs.storage import s3_client


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def test_defaults() -> None:
    meta = s3_client.client().meta
    assert meta.region_name == "us-east-1"
    assert meta.config.retries == {"mode": "standard", "total_max_attempts": 5}
    assert s3_client.max_attempts() == 5


def test_variables_count_from_the_next_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first = s3_client.client()
    assert s3_client.client() is first
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    meta = s3_client.client().meta
    assert (meta.region_name, meta.endpoint_url) == ("eu-west-3", "http://127.0.0.1:9")
    assert meta.config.retries == {"mode": "adaptive", "total_max_attempts": 7}
    assert meta.config.s3["addressing_style"] == "path"


def test_the_profile_counts_where_no_variable_is_set(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[default]\nregion = eu-north-1\nmax_attempts = 2\n")
    assert s3_client.client().meta.region_name == "eu-north-1"
    assert s3_client.max_attempts() == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_ENDPOINT_URL", "no url"),
        ("AWS_REGION", "not a region!"),
        ("AWS_PROFILE", "nobody"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "sometimes"),
    ],
)
def test_a_variable_that_cannot_be_used_is_an_input_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="AWS settings") as caught:
        s3_client.client()
    assert "\n" not in str(caught.value)


def test_a_part_is_not_compared_with_the_checksum_of_the_whole() -> None:
    config = s3_client.client(ranged=True).meta.config
    assert config.response_checksum_validation == "when_required"
    assert s3_client.client().meta.config.response_checksum_validation != "when_required"
