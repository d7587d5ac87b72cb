"""Worker processes: asked, killed, hung."""

import os
import signal
import time

import pytest

from semabench.evaluation.workers.peer import (
    Peer,
    PeerError,
    Request,
    ask_at_once,
    stopped_at_the_end,
)

# A stand-in for the worker, told nothing: without torch to import it starts at once.
ENTRY = """
import os, sys, time
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
connection.recv()
try:
    while True:
        method, arguments = connection.recv()
        if method == "die":
            os.kill(os.getpid(), 9)
        if method == "sleep":
            time.sleep(arguments[0])
        connection.send((method != "fail", arguments[0] if arguments else os.getpid()))
except EOFError:
    pass
"""


@pytest.fixture
def peers(tmp_path, monkeypatch):
    monkeypatch.setattr(Peer, "entry", ENTRY)
    made = [Peer(dict, log=tmp_path / f"{name}.log") for name in "ab"]
    with stopped_at_the_end(made):
        yield made


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_each_peer_is_a_process_of_its_own_and_stays(peers):
    pids = [peer.ask("pid") for peer in peers]
    assert len({*pids, os.getpid()}) == 3
    assert [peer.ask("pid") for peer in peers] == pids
    for peer in peers:
        peer.stop()
    assert all(gone(pid) for pid in pids)


def test_a_dead_worker_says_how_it_died_and_is_replaced(peers):
    first, other = peers[0].ask("pid"), peers[1].ask("pid")
    with pytest.raises(PeerError, match=r"killed by SIGKILL.*a\.log"):
        peers[0].ask("die")
    assert peers[0].ask("pid") != first
    assert peers[1].ask("pid") == other


def test_one_killed_while_idle_is_told_at_the_next_request(peers):
    os.kill(peers[0].ask("pid"), signal.SIGTERM)
    peers[0].process.wait()
    with pytest.raises(PeerError, match="SIGTERM"):
        peers[0].ask("pid")


def test_a_failure_is_its_message_and_the_process_lives(peers):
    pid = peers[0].ask("pid")
    with pytest.raises(PeerError, match=r"^out of luck$"):
        peers[0].ask("fail", "out of luck")
    assert peers[0].ask("pid") == pid


def test_a_hung_worker_is_killed(peers):
    pid = peers[0].ask("pid")
    peers[0].patience = 0.1
    with pytest.raises(PeerError, match=r"no answer within 0\.1 s"):
        peers[0].ask("sleep", 60)
    assert gone(pid)


def test_requests_of_one_peer_queue_those_of_two_do_not(peers):
    answers = []
    for peer in peers:
        peer.ask("pid")
    start = time.monotonic()
    ask_at_once(
        [
            *(Request(peer, tag, "sleep", (0.5,)) for tag, peer in enumerate(peers)),
            Request(peers[0], "dies", "die"),
            Request(peers[0], "again", "pid"),
        ],
        lambda tag, answer: answers.append((tag, type(answer).__name__)),
    )
    assert time.monotonic() - start < 5
    assert sorted(map(str, answers)) == sorted(
        map(str, [(0, "float"), (1, "float"), ("dies", "PeerError"), ("again", "int")])
    )
    tags = [tag for tag, _ in answers]
    assert tags.index(0) < tags.index("dies") < tags.index("again")
