"""What is sent again, what is concluded from the answers, and what Hadoop's exceptions mean."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from millstream.hadoop_loader.filesystem import (
    AccessDeniedError,
    DirectoryNotEmptyError,
    FileSystemError,
    QuotaExceededError,
    StorageFullError,
    UnavailableError,
    UnknownOutcomeError,
)
from millstream.hadoop_loader.filesystem.remote import NotBegunError, RemoteCalls, UnansweredError, java_error

LOST = UnansweredError("connection reset")
REFUSED = NotBegunError("safe mode")
TAKEN = FileExistsError(17, "taken")


class Server:
    """Answers calls by a script: exceptions are raised, anything else is returned; the last answer repeats."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.dropped = 0

    def __call__(self) -> object:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def drop(self) -> None:
        self.dropped += 1


def calls(server: Server, deadline_s: float = 30.0) -> RemoteCalls:
    return RemoteCalls("hdfs://host:8020", deadline_s, 4, lambda error, _: error, server.drop)


@pytest.mark.parametrize("answers", [[REFUSED, REFUSED, "done"], [LOST, "done"], [REFUSED, LOST, REFUSED, "done"]])
def test_reads_and_acts_are_sent_again_until_there_is_an_answer(answers: Sequence[object]) -> None:
    for call in ("read", "act"):
        server = Server(*answers)
        assert getattr(calls(server), call)("path", server) == "done"
        assert server.asked == len(answers)
        assert server.dropped == answers.count(LOST)


def test_a_refusal_after_a_lost_answer_may_be_the_work_of_the_first_try() -> None:
    for refusal in (TAKEN, FileNotFoundError(2, "gone"), NotADirectoryError(20, "a file")):
        server = Server(LOST, REFUSED, refusal)
        with pytest.raises(UnknownOutcomeError, match=r"connection reset, and the next try says: (taken|gone|a file)"):
            calls(server).act("path", server)
        server = Server(REFUSED, refusal)
        with pytest.raises(type(refusal)):
            calls(server).act("path", server)
        server = Server(LOST, refusal)
        with pytest.raises(type(refusal)):
            calls(server).read("path", server)


@pytest.mark.parametrize("kind", [QuotaExceededError, AccessDeniedError, StorageFullError, FileSystemError])
def test_no_refusal_makes_certain_what_was_not_answered(kind: type[FileSystemError]) -> None:
    refusal = kind("no", uri="hdfs://host:8020", path="path", remedy="mend it")
    with pytest.raises(UnknownOutcomeError, match="connection reset, and the next try says: no; mend it"):
        calls(Server(LOST, refusal)).act("path", Server(LOST, refusal))
    for server, call in ((Server(LOST, refusal), "read"), (Server(REFUSED, refusal), "act")):
        with pytest.raises(kind) as raised:
            getattr(calls(server), call)("path", server)
        assert raised.value is refusal


def test_the_first_reason_is_kept_at_the_deadline() -> None:
    for kind in (UnknownOutcomeError, UnavailableError):
        late = kind("no answer within 30 s", uri="hdfs://host:8020", path="path")
        with pytest.raises(UnknownOutcomeError, match="connection reset"):
            calls(Server(LOST, late)).act("path", Server(LOST, late))


def test_at_the_deadline_what_was_never_begun_is_known() -> None:
    server = Server(REFUSED)
    with pytest.raises(UnavailableError, match=r"path: safe mode, for 0.2 s; see that it runs"):
        calls(server, 0.2).act("path", server)
    server = Server(REFUSED, LOST, REFUSED)
    with pytest.raises(UnknownOutcomeError, match=r"path: connection reset, for 0.2 s; "):
        calls(server, 0.2).act("path", server)
    server = Server(LOST)
    with pytest.raises(UnavailableError, match="connection reset"):
        calls(server, 0.2).read("path", server)


def test_a_call_that_hangs_has_its_connection_dropped() -> None:
    gate = threading.Event()
    attempts: list[Callable[[RemoteCalls], object]] = [
        lambda remote: remote.act("path", gate.wait),
        lambda remote: remote.act_once("path", gate.wait),
    ]
    for attempt in attempts:
        server = Server()
        with pytest.raises(UnknownOutcomeError, match="no answer within"):
            attempt(calls(server, 0.05))
        assert server.dropped == 1
    gate.set()


def test_bytes_are_never_sent_twice() -> None:
    for answer, kind in ((LOST, UnknownOutcomeError), (REFUSED, UnavailableError), (TAKEN, FileExistsError)):
        server = Server(answer)
        with pytest.raises(kind):
            calls(server).act_once("path", server)
        assert server.asked == 1


@pytest.mark.parametrize(
    ("java_class", "message", "kind"),
    [
        ("java.io.FileNotFoundException", "File does not exist: /a", FileNotFoundError),
        ("java.io.FileNotFoundException", "Path is not a file: /a", IsADirectoryError),
        ("org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException", "No lease on /a", FileNotFoundError),
        ("org.apache.hadoop.fs.FileAlreadyExistsException", "/a exists", FileExistsError),
        ("org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException", "by another", FileExistsError),
        ("java.io.IOException", "Source /a and destination /b must both be directories", FileExistsError),
        ("org.apache.hadoop.fs.ParentNotDirectoryException", "/a", NotADirectoryError),
        ("org.apache.hadoop.security.AccessControlException", "/a (is not a directory)", NotADirectoryError),
        ("org.apache.hadoop.security.AccessControlException", "Permission denied: user=bob", AccessDeniedError),
        ("org.apache.hadoop.security.token.SecretManager$InvalidToken", "expired", AccessDeniedError),
        ("org.apache.hadoop.fs.PathIsNotEmptyDirectoryException", "`/a is non empty'", DirectoryNotEmptyError),
        ("org.apache.hadoop.hdfs.protocol.NSQuotaExceededException", "quota=2", QuotaExceededError),
        ("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "quota=1 MB", QuotaExceededError),
        (
            "java.io.IOException",
            "File /a could only be written to 0 of the 1 minReplication nodes. There are 3 datanode(s) running",
            StorageFullError,
        ),
        (
            "java.io.IOException",
            "File /a could only be written to 0 of the 1 minReplication nodes. There are 0 datanode(s) running",
            UnavailableError,
        ),
        ("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "Name node is in safe mode.", NotBegunError),
        ("org.apache.hadoop.ipc.StandbyException", "Operation category WRITE is not supported", NotBegunError),
        ("java.net.ConnectException", "Call From host to namenode failed", UnansweredError),
        ("java.lang.IllegalStateException", "whatever", FileSystemError),
    ],
)
def test_hadoops_exceptions_have_a_meaning(java_class: str, message: str, kind: type[Exception]) -> None:
    found = java_error(java_class, f"{message}\n\tat org.apache.hadoop.Whatever", uri="hdfs://host:8020", path="a")
    assert type(found) is kind
    assert message in str(found)
    assert "\tat " not in str(found)
    if isinstance(found, FileSystemError):
        assert str(found).startswith("hdfs://host:8020/a: ")
        assert found.remedy in str(found)
