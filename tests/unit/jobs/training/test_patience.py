import logging
import threading
from functools import partial

import pytest

from i2l_model.errors import InputError
from jobs.away import ServerAway
from jobs.training import patience
from jobs.training.patience import BackgroundWriter, patiently

WAIT_S = 10


class Server:
    """Takes writes, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.taken: list[int] = []
        self.tried = threading.Event()

    def write(self, number: int) -> None:
        self.tried.set()
        if self.away:
            raise ConnectionError("no answer")
        self.taken.append(number)


def test_an_action_is_repeated_until_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([OSError("no"), OSError("no"), 7])
    waits: list[float] = []
    said: list[str] = []
    monkeypatch.setattr(patience.time, "sleep", waits.append)

    def act() -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert patiently(act, "the upload", 60, said.append) == 7
    assert waits == [1.0, 2.0]
    assert said == ["the upload fails (no); trying again", "the upload went through"]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        patiently(act, "the upload", 0, print)


def test_what_a_server_did_not_take_is_sent_in_order_once_it_answers() -> None:
    server = Server()
    writer = BackgroundWriter("MLflow", retry_s=0.01)
    server.away = True
    for number in range(3):
        writer.add(lambda number=number: server.write(number))
    assert server.tried.wait(WAIT_S)
    server.away = False
    writer.close(patience_s=WAIT_S)
    assert server.taken == [0, 1, 2]


def test_a_server_that_stays_away_does_not_hold_the_end_and_the_loss_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.away = True
    writer = BackgroundWriter("MLflow", retry_s=0.01)
    for number in range(2):
        writer.add(lambda number=number: server.write(number))
    with caplog.at_level(logging.WARNING):
        writer.close(patience_s=0.1)
    assert server.taken == []
    assert "2 writes to MLflow are lost" in caplog.text
    assert caplog.text.count("no answer") == 1


def test_a_server_that_cannot_be_reached_is_waited_for_and_a_refusal_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[Exception] = [
        ServerAway("uri", "s3://bucket/x", "cannot be reached", "start it"),
        InputError("uri", "s3://bucket/x", "was refused", "check the credentials"),
    ]
    waits: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", waits.append)

    def act() -> None:
        raise errors.pop(0)

    with pytest.raises(InputError, match="was refused"):
        patiently(act, "the upload", 60, print)
    assert waits == [1.0]


def test_a_write_that_is_refused_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    tries: list[str] = []

    def refused(name: str) -> None:
        tries.append(name)
        raise RuntimeError("the run is deleted")

    writer = BackgroundWriter("MLflow", retry_s=0.01)
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            writer.add(partial(refused, name))
        writer.add(partial(server.write, 1))
        writer.add(partial(refused, "c"))
        writer.add(partial(server.write, 2))
        writer.close(patience_s=WAIT_S)
    assert server.taken == [1, 2]
    assert tries == ["a"] * 3 + ["b"] + ["c"] * 3
    assert caplog.text.count("refuses a write (the run is deleted)") == 2
    assert "3 writes to MLflow are lost" in caplog.text


def test_no_more_is_kept_than_the_memory_for_it(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.away = True
    writer = BackgroundWriter("MLflow", retry_s=0.01, max_bytes=30)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            writer.add(partial(server.write, number), 10)
        server.away = False
        writer.close(patience_s=WAIT_S)
    assert server.taken == [0, 1, 2]
    assert caplog.text.count("no more are kept") == 1
    assert "2 writes to MLflow are lost" in caplog.text
