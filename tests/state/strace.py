"""What a process did to files, and what it sent, in order, as `strace` saw it; and the disk that a
power loss would have left behind."""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CALLS = "openat,pwrite64,fsync,fdatasync,ftruncate,rename,unlink,sendto,sendmsg"


def tracer(trace: Path) -> list[str]:
    """A command that runs the one given to it, traced into a file; its process is that one's."""
    strings = ["-y", "-xx", "-s", "99999999"]
    return ["strace", "-D", "-f", "--seccomp-bpf", *strings, "-e", CALLS, "-o", str(trace)]


def complete(trace: Path, process: int) -> bool:
    """Whether the trace holds the end of its process: strace writes it a moment later."""
    end = rf"^{process} +\+\+\+ ".encode()
    return re.search(end, trace.read_bytes()[-10_000:], re.MULTILINE) is not None


class Call(NamedTuple):
    """A system call that succeeded."""

    name: str
    path: str
    """Of the file, or of the socket by its number."""
    data: bytes = b""
    number: int = 0
    """An offset, or a size."""
    to: str = ""


_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(.*) <unfinished \.\.\.>|(.*))")
_CALL = re.compile(r"(\w+)\((.*)\) += \d+(?:<(.*)>)?$")
_TEXT = re.compile(r'"([^"]*)"')
_FILE = re.compile(r"\d+<([^>]*)>")


def calls(trace: Path) -> Iterator[Call]:
    """The calls in the order in which they ended, but what is sent when it begins to be."""
    begun: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        found = _LINE.fullmatch(line)
        if found is None or "O_RDONLY" in line:
            continue
        thread, resumed, rest, unfinished, whole = found.groups()
        if unfinished is not None:
            begun[thread] = unfinished
            if unfinished.startswith("send"):
                yield from _call(f"{unfinished}) = 1")
            continue
        text = whole if resumed is None else begun.pop(thread, "") + rest
        if resumed is None or not resumed.startswith("send"):
            yield from _call(text)


def _call(text: str) -> Iterator[Call]:
    found = _CALL.match(text)
    if found is None:
        return  # it failed, or is a signal
    name, arguments, opened = found.groups()
    texts = [_bytes(t) for t in _TEXT.findall(arguments)]
    file = _FILE.match(arguments)
    path = _bytes(file[1]).decode() if file else ""
    number = int(arguments.rsplit(", ", 1)[-1]) if name in ("pwrite64", "ftruncate") else 0
    if name == "openat":
        yield Call("open", _bytes(opened or "").decode(), number="O_CREAT" in arguments)
    elif name in ("unlink", "rename"):
        yield Call(name, texts[0].decode(), to=texts[-1].decode())
    else:
        yield Call(name, path, b"".join(texts), number)


def _bytes(text: str) -> bytes:
    """Of a string whose characters are all written as their codes, or none is."""
    return bytes.fromhex(text.replace("\\x", "")) if "\\x" in text else text.encode()


@dataclass
class _File:
    synced: bytearray = field(default_factory=bytearray)
    written: list[Call] = field(default_factory=list)
    """Since the last sync."""


class Disk:
    """A folder of which only that is sure to last which was followed by a sync: of a file for its
    content, of the folder for the names in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._files: dict[str, _File] = {}
        self._names: dict[str, _File] = {}
        """As they were when the folder was last synced."""

    def take(self, call: Call) -> None:
        files, path = self._files, call.path
        if call.name in ("fsync", "fdatasync") and path == self._folder:
            self._names = dict(files)
        if not path.startswith(f"{self._folder}/"):
            return
        if call.name == "open" and call.number:
            files.setdefault(path, _File())
        elif call.name == "unlink":
            files.pop(path, None)
        elif call.name == "rename":
            files[call.to] = files.pop(path)
        elif path in files and call.name in ("pwrite64", "ftruncate"):
            files[path].written.append(call)
        elif path in files and call.name in ("fsync", "fdatasync"):
            file = files[path]
            _apply(file.written, file.synced)
            file.written.clear()

    def after_power_loss(self, folder: Path, lasting: random.Random | None) -> None:
        """Makes the files in another folder as the loss leaves them.

        Args:
            folder: Where to.
            lasting: Chooses what lasts of that which wasn't synced; None: nothing.
        """
        for path, file in self._names.items():
            content = bytearray(file.synced)
            if lasting is not None:
                _apply([call for call in file.written if lasting.random() < 0.5], content)
            if not path.endswith("-shm"):  # memory that processes share, made again after a boot
                (folder / Path(path).name).write_bytes(content)


def _apply(written: Iterable[Call], content: bytearray) -> None:
    for call in written:
        end = call.number + len(call.data)
        content.extend(bytes(max(0, end - len(content))))
        if call.name == "ftruncate":
            del content[call.number :]
        else:
            content[call.number : end] = call.data


class Responses:
    """The bodies of HTTP responses that a process has begun to send, from its system calls."""

    def __init__(self) -> None:
        self._heads: dict[str, tuple[int, bytes]] = {}
        self.bodies: list[tuple[int, bytes]] = []
        """With the place of the first call of each among all calls."""

    def take(self, place: int, call: Call) -> None:
        if not call.name.startswith("send"):
            return
        if call.data.startswith(b"HTTP/1.1 "):
            self._heads[call.path] = place, b""
        if call.path not in self._heads:
            return
        begun, sent = self._heads[call.path]
        sent += call.data
        self._heads[call.path] = begun, sent
        head, _, body = sent.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if length and len(body) == int(length[1]):
            self.bodies.append((begun, body))
