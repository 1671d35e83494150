import os
import socket
import threading
import time

import pytest

from store.initialise import initialise
from store.scheduling.wakeups import TRAIN, Wakeups, celery_app, remove_read, wakeup_sender
from store.settings import Settings

JOB = "job_00000000000000000000000000"


def test_wakeups_are_sent_in_order():
    sent = []
    wakeups = Wakeups(sent.append)
    for number in range(5):
        wakeups.enqueue(str(number))
    wakeups.close()
    assert sent == ["0", "1", "2", "3", "4"]


def test_a_dead_broker_does_not_delay_or_fail_the_caller():
    attempts = []

    def send(job_id):
        attempts.append(job_id)
        raise ConnectionError("no broker")

    wakeups = Wakeups(send)
    wakeups.enqueue("a")
    wakeups.enqueue("b")
    wakeups.close()
    assert attempts == ["a", "b"]


def test_wakeups_beyond_the_queue_size_are_dropped_immediately():
    may_send = threading.Event()
    wakeups = Wakeups(lambda _: may_send.wait(), size=2)
    start = time.monotonic()
    for _ in range(100):
        wakeups.enqueue(JOB)
    assert time.monotonic() - start < 0.5
    may_send.set()
    wakeups.close()


def test_a_wakeup_is_a_json_message_in_the_data_folder(tmp_path):
    settings = Settings(data=tmp_path / "data")
    initialise(settings)
    app = celery_app(settings)
    wakeup_sender(app)(JOB)
    assert list(settings.broker_folder.glob("messages/*.msg"))
    with app.connection() as connection:
        message = connection.SimpleQueue("frs").get(timeout=5)
    assert message.headers["task"] == TRAIN
    assert message.headers["expires"]
    assert message.content_type == "application/json"
    assert message.payload[0] == [JOB]


def test_messages_that_were_read_are_removed_once_they_are_stale(tmp_path):
    settings = Settings(data=tmp_path / "data")
    initialise(settings)
    app = celery_app(settings)
    send = wakeup_sender(app)
    for _ in range(3):
        send(JOB)
    with app.connection() as connection:
        messages = connection.SimpleQueue("frs")
        for _ in range(2):
            messages.get(timeout=5).ack()
    read = list(settings.broker_folder.glob("processed/*.msg"))
    os.utime(read[0], (1.0, 1.0))
    remove_read(settings)
    assert list(settings.broker_folder.glob("processed/*")) == [read[1]]
    assert len(list(settings.broker_folder.glob("messages/*.msg"))) == 1


@pytest.mark.parametrize("broker", ["refuses", "is silent"])
def test_a_send_without_a_broker_fails_within_seconds(tmp_path, broker):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if broker == "is silent":
            server.listen()
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        send = wakeup_sender(celery_app(Settings(data=tmp_path, broker_url=url)))
        start = time.monotonic()
        with pytest.raises(Exception, match="(?i)refused|timeout|timed out"):
            send(JOB)
    assert time.monotonic() - start < 12
