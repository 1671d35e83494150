"""Malicious archives: each is refused with its code, and no file is left or written elsewhere."""

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from frs.dataset.upload.archive import unpack
from frs.dataset.upload.archive_members import ArchiveLimits
from frs.errors import BadDataset

SMALL = ArchiveLimits(members=50, bytes=40 << 20, member_bytes=30 << 20, ratio=200, depth=4, name_bytes=100)
ZEROS = bytes(1 << 20)
UNPACK = """
import re, sys
from pathlib import Path
from frs.dataset.upload.archive import unpack
from frs.errors import FrsError
try:
    unpack(*map(Path, sys.argv[1:]))
except FrsError as error:
    print(error.code, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
Entries = list[tuple[str | zipfile.ZipInfo, bytes]]


def make_zip(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def entry_of_kind(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, mode << 16
    return entry


def make_tar(*members: tarfile.TarInfo, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return stream.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def zip_of_zeros(mebibytes: int, name: str = "a.json") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as file:
        for _ in range(mebibytes):
            file.write(ZEROS)
    return stream.getvalue()


def overlapping(count: int) -> bytes:
    """Many central directory entries for one body: the "better zip bomb" without quoting."""
    content = make_zip(("a.json", bytes(1000)))
    start = content.index(b"PK\1\2")
    body, listed = content[:start], content[start : content.index(b"PK\5\6")]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, count * len(listed), len(body), 0)
    return body + listed * count + end


def quoting() -> bytes:
    """The "better zip bomb": the stored data of the first entry contain the header of the second."""
    inner = make_zip(("b.json", bytes(1000)))
    start = inner.index(b"PK\1\2")
    local, listed_inner = inner[:start], inner[start : inner.index(b"PK\5\6")]
    outer = make_zip(("a.json", local), method=zipfile.ZIP_STORED)
    place = outer.index(local)
    listed_outer = outer[outer.index(b"PK\1\2") : outer.index(b"PK\5\6")]
    moved = listed_inner[:42] + struct.pack("<L", place) + listed_inner[46:]
    body = outer[: place + len(local)]
    listed = listed_outer + moved
    return body + listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(listed), len(body), 0)


def wrong_size(size: int) -> bytes:
    content = bytearray(make_zip(("a.json", b"x" * 5000)))
    place = content.index(b"PK\1\2")
    content[place + 24 : place + 28] = struct.pack("<L", size)
    return bytes(content)


def encrypted() -> bytes:
    content = bytearray(make_zip(("a.json", b"{}")))
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


def many_listed(count: int) -> bytes:
    """A central directory of `count` entries whose end record has a count of one."""
    listed = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) * count
    return listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(listed), 0, 0)


def header(name: str, kind: bytes, size: bytes) -> bytes:
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT)[:512])
    block[124:136], block[156:157], block[148:156] = size, kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


PLAIN = entry("a.json", size=1000)
TAR = make_tar(PLAIN, entry("b.json", size=1000))
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip: ..": (lambda: make_zip(("../a.json", b"{}")), "archive_refused"),
    "zip: .. inside": (lambda: make_zip(("train/../../a.json", b"{}")), "archive_refused"),
    "zip: absolute": (lambda: make_zip(("/tmp/a.json", b"{}")), "archive_refused"),
    "zip: backslashes": (lambda: make_zip(("..\\..\\a.json", b"{}")), "archive_refused"),
    "zip: drive": (lambda: make_zip(("C:/a.json", b"{}")), "archive_refused"),
    "zip: wide dots": (lambda: make_zip(("\uff0e\uff0e/a.json", b"{}")), "archive_refused"),
    "zip: wide slash": (lambda: make_zip(("..\uff0fa.json", b"{}")), "archive_refused"),
    "zip: two-dot leader": (lambda: make_zip(("\u2025/a.json", b"{}")), "archive_refused"),
    "zip: turned text": (lambda: make_zip(("a\u202egpj.json", b"{}")), "archive_refused"),
    "zip: line break": (lambda: make_zip(("a\n.json", b"{}")), "archive_refused"),
    "zip: NUL": (lambda: make_zip(("aX.exe.json", b"{}")).replace(b"aX.exe", b"a\0.exe"), "archive_refused"),
    "zip: hidden kind goes .. too": (lambda: make_zip(("a.json", b"{}"), ("../run.sh", b"")), "archive_refused"),
    "zip: link": (lambda: make_zip((entry_of_kind("a.json", 0o120777), b"/etc/passwd")), "archive_refused"),
    "zip: device": (lambda: make_zip((entry_of_kind("a.json", 0o020666), b"")), "archive_refused"),
    "zip: pipe": (lambda: make_zip((entry_of_kind("a.json", 0o010666), b"")), "archive_refused"),
    "zip: same name twice": (lambda: make_zip(("a.json", b"1"), ("a.json", b"2")), "archive_refused"),
    "zip: same name but for case": (lambda: make_zip(("a.json", b"1"), ("A.JSON", b"2")), "archive_refused"),
    "zip: same folder but for case": (lambda: make_zip(("t/a.json", b"1"), ("T/b.json", b"2")), "archive_refused"),
    "zip: composed and not": (lambda: make_zip(("\u00e9.json", b"1"), ("e\u0301.json", b"2")), "archive_refused"),
    "zip: file and folder": (lambda: make_zip(("a.json", b"1"), ("a.json/b.json", b"2")), "archive_refused"),
    "zip: folder and file": (lambda: make_zip(("a.json/b.json", b"2"), ("a.json", b"1")), "archive_refused"),
    "zip: dotted twice": (lambda: make_zip(("a.json", b"1"), ("./a.json", b"2")), "archive_refused"),
    "zip: overlapping": (lambda: overlapping(40), "archive_refused"),
    "zip: quoting": (quoting, "archive_refused"),
    "zip: ratio": (lambda: zip_of_zeros(20), "archive_too_large"),
    "zip: one file too large": (lambda: make_zip(("a.json", bytes(31 << 20)), method=0), "archive_too_large"),
    "zip: too large altogether": (
        lambda: make_zip(*((f"{n}.json", bytes(14 << 20)) for n in range(3)), method=0),
        "archive_too_large",
    ),
    "zip: too many": (lambda: make_zip(*((f"{n}.json", b"") for n in range(51))), "archive_too_large"),
    "zip: too many that are left out": (lambda: make_zip(*((f"{n}.exe", b"") for n in range(51))), "archive_too_large"),
    "zip: a million listed as one": (lambda: many_listed(1_000_000), "archive_too_large"),
    "zip: too deep": (lambda: make_zip(("a/b/c/d/e/a.json", b"")), "archive_too_large"),
    "zip: a name too long": (lambda: make_zip(("a" * 101 + ".json", b"")), "archive_too_large"),
    "zip: a path too long": (lambda: make_zip(("a/" * 600 + "a.json", b"")), "archive_refused"),
    "zip: claimed size too large": (lambda: wrong_size(5001), "archive_unreadable"),
    "zip: claimed size too small": (lambda: wrong_size(10), "archive_unreadable"),
    "zip: encrypted": (encrypted, "archive_unreadable"),
    "zip: bzip2": (lambda: make_zip(("a.json", bytes(1000)), method=zipfile.ZIP_BZIP2), "archive_unreadable"),
    "zip: lzma": (lambda: make_zip(("a.json", bytes(1000)), method=zipfile.ZIP_LZMA), "archive_unreadable"),
    "zip: cut off": (lambda: make_zip(("a.json", bytes(1000)))[:-30], "archive_unreadable"),
    "zip: cut off inside": (lambda: make_zip(("a.json", bytes(1000)), method=0)[500:], "archive_unreadable"),
    "zip: a flipped bit": (
        lambda: make_zip(("a.json", b"abc"), method=0).replace(b"abc", b"abd"),
        "archive_unreadable",
    ),
    "zip: empty": (lambda: make_zip(), "archive_unreadable"),
    "zip: archives within alone": (lambda: make_zip(("a.zip", zip_of_zeros(1))), "archive_unreadable"),
    "tar: ..": (lambda: make_tar(entry("../a.json")), "archive_refused"),
    "tar: absolute": (lambda: make_tar(entry("/a.json")), "archive_refused"),
    "tar: symbolic link": (lambda: make_tar(entry("a.json", tarfile.SYMTYPE, "/etc/passwd")), "archive_refused"),
    "tar: link to a folder, then through it": (
        lambda: make_tar(entry("a", tarfile.SYMTYPE, "/tmp"), entry("a/b.json", size=3)),
        "archive_refused",
    ),
    "tar: hard link": (lambda: make_tar(PLAIN, entry("b.json", tarfile.LNKTYPE, "a.json")), "archive_refused"),
    "tar: device": (lambda: make_tar(entry("a.json", tarfile.CHRTYPE, devmajor=1, devminor=5)), "archive_refused"),
    "tar: block device": (lambda: make_tar(entry("a.json", tarfile.BLKTYPE)), "archive_refused"),
    "tar: pipe": (lambda: make_tar(entry("a.json", tarfile.FIFOTYPE)), "archive_refused"),
    "tar: sparse": (lambda: header("a.json", tarfile.GNUTYPE_SPARSE, octal(0)) + bytes(1024), "archive_refused"),
    "tar: same name twice": (lambda: make_tar(PLAIN, entry("a.json")), "archive_refused"),
    "tar: a long name of 8 GB": (
        lambda: header("././@LongLink", tarfile.GNUTYPE_LONGNAME, octal((8 << 30) - 1)) + bytes(4096),
        "archive_refused",
    ),
    "tar: attributes of 2 MiB": (
        lambda: header("x", tarfile.XHDTYPE, octal(2 << 20)) + bytes(2 << 20) + TAR,
        "archive_refused",
    ),
    "tar: headers of headers": (lambda: header("x", tarfile.XHDTYPE, octal(0)) * 5000 + TAR, "archive_unreadable"),
    "tar: a size below zero": (lambda: header("a.json", b"0", b"\xff" * 12) + bytes(2048), "archive_unreadable"),
    "tar: backwards for ever": (
        lambda: make_tar(PLAIN)[:1536] + header("b.exe", b"0", b"\xff" * 10 + b"\xfa\x00") + bytes(4096),
        "archive_unreadable",
    ),
    "tar: cut off inside": (lambda: TAR[:1000], "archive_unreadable"),
    "tar: cut off between": (lambda: TAR[:1536], "archive_unreadable"),
    "tar: nonsense between": (lambda: TAR[:1536] + b"\x07" * 4096, "archive_unreadable"),
    "tar.gz: ratio": (lambda: gzip.compress(make_tar(entry("a.json", size=20 << 20))), "archive_too_large"),
    "tar.gz: ratio of what is left out": (
        lambda: gzip.compress(make_tar(PLAIN, entry("a.bin", size=20 << 20))),
        "archive_too_large",
    ),
    "tar.gz: ratio after the end": (lambda: gzip.compress(TAR + bytes(20 << 20)), "archive_too_large"),
    "tar.gz: cut off": (lambda: gzip.compress(TAR)[:-20], "archive_unreadable"),
    "tar.gz: wrong checksum": (lambda: gzip.compress(TAR)[:-8] + bytes(8), "archive_unreadable"),
    "tar.gz: gzip in gzip": (lambda: gzip.compress(gzip.compress(TAR)), "archive_unreadable"),
    "text": (lambda: b"hello", "archive_unreadable"),
    "nothing": (lambda: b"", "archive_unreadable"),
    "raw deflate": (lambda: zlib.compress(TAR), "archive_unreadable"),
    "only a beginning": (lambda: b"PK\3\4", "archive_unreadable"),
}


def everything_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_malicious_archive_is_refused_and_leaves_no_files(tmp_path, name):
    make, code = HOSTILE[name]
    archive = tmp_path / "archive"
    archive.write_bytes(make())
    before = everything_in(tmp_path)
    with pytest.raises(BadDataset) as raised:
        unpack(archive, tmp_path / "in" / "here", SMALL)
    assert (raised.value.code, everything_in(tmp_path) - before) == (code, {tmp_path / "in"})
    assert str(tmp_path) not in raised.value.message
    assert raised.value.message.isprintable()


@pytest.mark.parametrize("pack", [make_zip, lambda *entries: gzip.compress(_tar_of(entries))])
def test_files_that_are_no_images_or_annotations_are_skipped_and_counted(tmp_path, pack):
    inner = make_zip(("x.json", b"{}"))
    names = ["run.sh", "a.zip", "__MACOSX/._a.jpg", ".git/a.txt", "train/.a.jpg", "a", "a.jpg.exe"]
    (tmp_path / "archive").write_bytes(pack(("./train/a.jpg", b"picture"), *((name, inner) for name in names)))
    result = unpack(tmp_path / "archive", tmp_path / "here")
    assert (result.files, result.bytes, result.skipped) == (1, 7, len(names))
    assert [path for path in everything_in(tmp_path / "here") if path.is_file()] == [tmp_path / "here/train/a.jpg"]


def test_permissions_and_owners_of_the_archive_are_ignored(tmp_path):
    (tmp_path / "zip").write_bytes(make_zip((entry_of_kind("a.json", 0o104777), b"{}")))
    (tmp_path / "tar").write_bytes(
        make_tar(entry("a.json", mode=0o6777, uid=1234), entry("d", tarfile.DIRTYPE, mode=0))
    )
    for kind in ("zip", "tar"):
        unpack(tmp_path / kind, tmp_path / f"from-{kind}")
        stat = (tmp_path / f"from-{kind}" / "a.json").stat()
        assert stat.st_mode & 0o7111 == 0
        assert stat.st_uid != 1234


def test_an_existing_folder_is_not_unpacked_into(tmp_path):
    (tmp_path / "zip").write_bytes(make_zip(("a.json", b"{}")))
    (tmp_path / "here").mkdir()
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "zip", tmp_path / "here")
    assert (tmp_path / "here").is_dir()


@pytest.mark.parametrize("name", ["zip: a million listed as one", "tar: a long name of 8 GB", "tar.gz: ratio"])
def test_refusing_an_archive_takes_little_memory(tmp_path, name):
    (tmp_path / "archive").write_bytes(HOSTILE[name][0]())
    completed = subprocess.run(
        [sys.executable, "-c", UNPACK, str(tmp_path / "archive"), str(tmp_path / "here")],
        capture_output=True,
        text=True,
        check=True,
    )
    code, kibibytes = completed.stdout.split()
    assert code == HOSTILE[name][1]
    assert int(kibibytes) < 200 << 10


CONVERT_UPLOAD = """
import sys
from frs.dataset.upload import convert
convert.MEMORY_BYTES = 1 << 30
sys.exit(convert.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [' + b"[]," * (20 << 20) + b"[]]}", "does not fit into memory"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"images": [' + b"9" * 1_000_000, "is not JSON"),
    ],
)
def test_an_annotation_file_that_exceeds_the_memory_limit_fails_its_subprocess(tmp_path, content, message):
    images = [("train/a.jpg", b""), ("val/a.jpg", b"")]
    annotations = [("annotations/instances_train.json", content), ("annotations/instances_val.json", b"{}")]
    (tmp_path / "archive").write_bytes(make_zip(*images, *annotations, method=zipfile.ZIP_STORED))
    completed = subprocess.run(
        [sys.executable, "-c", CONVERT_UPLOAD, str(tmp_path / "archive"), str(tmp_path / "here"), str(1 << 30)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (1, "")
    assert message in json.loads(completed.stdout)["message"]


def _tar_of(entries: Entries) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in entries:
            member = entry(str(name), size=len(content))
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()
