"""Pickles that run code in an unsafe unpickler, assembled from opcodes, and the file formats that contain them."""

import io
import struct
import tarfile
import zipfile
from pathlib import Path

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
"""Start of torch's oldest format: magic number and version."""
SYSTEM_INFO = (
    b"\x80\x02}q\x00(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03X\r\x00\x00\x00little_endianq\x02\x88X\n"
    b"\x00\x00\x00type_sizesq\x03}q\x04u."
)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def by_stack(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def args(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def called(module: str, name: str, *parts: bytes) -> bytes:
    return named(module, name) + args(*parts) + b"R"


def whole(code: bytes, protocol: int = 2) -> bytes:
    return (b"\x80" + bytes([protocol]) if protocol >= 2 else b"") + code + b"."


def listed(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"l"


def calls(canary: Path) -> dict[str, bytes]:
    """Return expressions as opcodes; an unsafe unpickler that evaluates one creates the canary file."""
    shell, python = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    command, code = text(shell), text(python)
    words = listed(text("/usr/bin/touch"), text(str(canary)))
    inner = whole(called("os", "system", command))
    raw = b"B" + struct.pack("<I", len(inner)) + inner
    simple = {
        "os.system": (command,),
        "posix.system": (command,),
        "nt.system": (command,),
        "os.popen": (command,),
        "os.execv": (text("/usr/bin/touch"), words),
        "os.posix_spawn": (text("/usr/bin/touch"), words, b"}"),
        "os.spawnv": (b"K\x00", text("/usr/bin/touch"), words),
        "os.mkdir": (text(str(canary)),),
        "os.open": (text(str(canary)), b"K\x41"),
        "posix.mkdir": (text(str(canary)),),
        "subprocess.Popen": (words,),
        "subprocess.call": (words,),
        "subprocess.run": (words,),
        "subprocess.check_output": (words,),
        "subprocess.getoutput": (command,),
        "subprocess.getstatusoutput": (command,),
        "_posixsubprocess.fork_exec": (words,),
        "pty.spawn": (words,),
        "asyncio.create_subprocess_shell": (command,),
        "builtins.eval": (code,),
        "builtins.exec": (code,),
        "builtins.open": (text(str(canary)), text("w")),
        "builtins.__import__": (text("antigravity"),),
        "builtins.breakpoint": (),
        "__builtin__.eval": (code,),
        "__builtin__.execfile": (text(str(canary)),),
        "io.open": (text(str(canary)), text("w")),
        "_io.FileIO": (text(str(canary)), text("w")),
        "codecs.open": (text(str(canary)), text("w")),
        "logging.FileHandler": (text(str(canary)),),
        "shelve.open": (text(str(canary)),),
        "dbm.open": (text(str(canary)), text("c")),
        "sqlite3.connect": (text(str(canary)),),
        "zipfile.ZipFile": (text(str(canary)), text("w")),
        "tempfile.NamedTemporaryFile": (),
        "shutil.copyfile": (text("/etc/passwd"), text(str(canary))),
        "importlib.import_module": (text("antigravity"),),
        "importlib._bootstrap._call_with_frames_removed": (named("os", "system"), command),
        "runpy.run_path": (text(str(canary)),),
        "runpy._run_code": (code, b"}"),
        "timeit.timeit": (code,),
        "cProfile.run": (code,),
        "profile.run": (code,),
        "pdb.run": (code,),
        "bdb.Bdb.run": (code,),
        "code.interact": (),
        "webbrowser.open": (text(f"file://{canary}"),),
        "ctypes.CDLL": (text(str(canary)),),
        "multiprocessing.util.spawnv_passfds": (text("/usr/bin/touch"), words, args()),
        "pickle.loads": (raw,),
        "_pickle.loads": (raw,),
        "marshal.loads": (raw,),
        "cloudpickle.loads": (raw,),
        "joblib.load": (text(str(canary)),),
        "numpy.load": (text(str(canary)), b"N", b"\x88"),
        "numpy.fromfile": (text(str(canary)),),
        "numpy.memmap": (text(str(canary)), text("uint8"), text("w+"), b"K\x00", b"K\x08"),
        "numpy.testing._private.utils.runstring": (code, b"}"),
        "numpy.distutils.exec_command.exec_command": (command,),
        "torch.load": (text(str(canary)),),
        "torch.save": (b"}", text(str(canary))),
        "torch.serialization.load": (text(str(canary)),),
        "torch.storage._load_from_bytes": (raw,),
        "torch.hub.load": (text("x/y"), text("z")),
        "torch.hub.load_state_dict_from_url": (text("http://127.0.0.1:1/x"),),
        "torch.hub.download_url_to_file": (text("file:///etc/passwd"), text(str(canary))),
        "torch.jit.load": (text(str(canary)),),
        "torch.jit.CompilationUnit": (code,),
        "torch.package.PackageImporter": (text(str(canary)),),
        "torch.utils.cpp_extension.load": (text("x"), listed(text(str(canary)))),
        "torch.utils.cpp_extension.load_inline": (text("x"), text("int a;")),
        "torch.utils.collect_env.run": (command,),
        "torch.ops.load_library": (text(str(canary)),),
        "torch.classes.load_library": (text(str(canary)),),
        "torch.utils.data.datapipes.utils.common.StreamWrapper": (code,),
        "torch._utils._rebuild_wrapper_subclass": (named("os", "system"), command),
        "torch._tensor._rebuild_from_type_v2": (named("os", "system"), command, args(), b"}"),
        "torch._inductor.codecache.compile_file": (command,),
        "torch.distributed.rpc.rpc_sync": (text("x"), named("os", "system")),
        "torch.multiprocessing.reductions.rebuild_storage_filename": (text("m"), text("h"), b"K\x08"),
        "torch.from_file": (text(str(canary)), b"\x88", b"K\x08"),
        "torch.UntypedStorage.from_file": (text(str(canary)), b"\x88", b"K\x08"),
        "mmengine.config.Config.fromfile": (text(str(canary)),),
        "mmengine.fileio.load": (text(str(canary)),),
        "mmengine.utils.import_modules_from_strings": (text("antigravity"),),
        "mmengine.registry.build_from_cfg": (b"}", b"N"),
        "yaml.unsafe_load": (text(f"!!python/object/apply:os.system ['{shell}']"),),
        "pip.main": (listed(text("--version")),),
        "site.execsitecustomize": (),
        "functools.partial": (named("os", "system"), command),
        "functools.reduce": (named("os", "system"), listed(command, command)),
        "operator.methodcaller": (text("system"), command),
        "operator.attrgetter": (text("system"),),
        "types.CodeType": (b"K\x00",) * 3,
        "types.FunctionType": (raw, b"}"),
        "copyreg.__newobj__": (named("subprocess", "Popen"), words),
        "copyreg._reconstructor": (named("subprocess", "Popen"), named("builtins", "object"), b"N"),
        "unittest.mock._importer": (text("antigravity"),),
        "frs.detectors.weights.os.system": (command,),
        "frs.detectors.import_weights.run": (text(str(canary)), text(str(canary))),
    }
    expressions = {}
    for name, parts in simple.items():
        module, _, attribute = name.rpartition(".")
        expressions[name] = called(module, attribute, *parts)
    return expressions | _chains(command, code) | _opcodes(command)


def _chains(command: bytes, code: bytes) -> dict[str, bytes]:
    """Return combinations of allowed names that could lead to a forbidden one."""
    module = called("builtins", "__import__", text("os"))
    loaded = called("importlib", "import_module", text("os"))
    buffer = named("mmengine.logging.history_buffer", "HistoryBuffer")
    ordered = called("collections", "OrderedDict")
    array = called("numpy._core.multiarray", "_reconstruct", named("numpy", "ndarray"), args(b"K\x00"), b"C\x01b")
    return {
        "getattr of a module": called("builtins", "getattr", module, text("system")) + args(command) + b"R",
        "getattr of an import": called("builtins", "getattr", loaded, text("system")) + args(command) + b"R",
        "getattr of the buffer's globals": called("builtins", "getattr", buffer, text("__init__")) + args(code) + b"R",
        "getattr called as it was made": called("builtins", "getattr", named("os", "system"), text("__call__")),
        "inert called": called("builtins", "getattr", buffer, text("x")) + args(command) + b"R",
        "dotted name": by_stack("builtins", "eval.__call__") + args(code) + b"R",
        "dotted name of the buffer": by_stack("mmengine.logging.history_buffer", "np.f2py.os.system")
        + args(command)
        + b"R",
        "state of an ordered dictionary": ordered + b"}" + text("__class__") + named("subprocess", "Popen") + b"sb",
        "state with a reducer": ordered + b"}" + text("__reduce__") + named("os", "system") + b"sb",
        "array of an object": array
        + args(
            b"K\x01",
            args(b"K\x01"),
            called("numpy", "dtype", text("O")),
            b"\x89",
            listed(called("os", "system", command)),
        )
        + b"b",
        "array of pointers": array
        + args(b"K\x01", args(b"K\x01"), called("numpy", "dtype", text("O")), b"\x89", b"C\x08" + b"A" * 8)
        + b"b",
        "scalar of an object": called(
            "numpy._core.multiarray", "scalar", called("numpy", "dtype", text("O")), called("os", "system", command)
        ),
        "codec": called("_codecs", "decode", text("x"), text("rot13")) + called("os", "system", command),
    }


def _opcodes(command: bytes) -> dict[str, bytes]:
    """Return the same call through each opcode that can call a function."""
    old = b"S'" + command[5:] + b"'\n"
    return {
        "REDUCE of protocol 0": b"cos\nsystem\n(" + old + b"tR",
        "INST": b"(" + old + b"ios\nsystem\n",
        "OBJ": b"(" + named("os", "system") + command + b"o",
        "NEWOBJ": named("subprocess", "Popen") + args(listed(command)) + b"\x81",
        "NEWOBJ_EX": named("subprocess", "Popen") + args(listed(command)) + b"}\x92",
        "STACK_GLOBAL": by_stack("os", "system") + args(command) + b"R",
        "BUILD": called("collections", "OrderedDict") + called("os", "system", command) + b"b",
        "BUILD of a class": named("os", "_wrap_close")
        + b")\x81}"
        + text("_proc")
        + called("os", "system", command)
        + b"sb",
        "EXT1": b"\x82\x01" + args(command) + b"R",
        "EXT2": b"\x83\x01\x00" + args(command) + b"R",
        "EXT4": b"\x84\x01\x00\x00\x00" + args(command) + b"R",
        "PERSID": b"Pos.system\n" + args(command) + b"R",
        "BINPERSID": called("os", "system", command) + b"Q",
        "BINPERSID of a storage": args(text("storage"), named("os", "system"), text("0"), text("cpu"), b"K\x01") + b"Q",
        "memo": named("os", "system") + b"q\x000" + command + b"q\x010h\x00(h\x01tR",
        "MEMOIZE": named("os", "system") + b"\x940" + b"h\x00" + args(command) + b"R",
        "DUP": named("os", "system") + b"2" + args(command) + b"R",
        "POP_MARK": b"(" + called("os", "system", command) + b"1N",
        "FRAME": b"\x95\x05\x00\x00\x00\x00\x00\x00\x00" + named("os", "system") + args(command) + b"R",
        "BYTEARRAY8": b"\x96" + struct.pack("<Q", 1 << 62) + b"x",
        "NEXT_BUFFER": b"\x97\x98" + named("os", "system") + args(command) + b"R",
        "as a key": b"}" + called("os", "system", command) + b"K\x01s",
        "in a set": b"\x8f(" + called("os", "system", command) + b"\x90",
        "in a frozen set": b"(" + called("os", "system", command) + b"\x91",
    }


def bombs() -> dict[str, bytes]:
    """Return expressions without code that claim excessive sizes."""
    tensor = named("torch._utils", "_rebuild_tensor_v2")

    def storage(count: bytes) -> bytes:
        return args(text("storage"), named("torch", "FloatStorage"), text("0"), text("cpu"), count) + b"Q"

    def rebuilt(count: bytes, offset: bytes, shape: bytes, stride: bytes) -> bytes:
        hooks = called("collections", "OrderedDict")
        rebuilt_tensor = tensor + args(storage(count), offset, shape, stride, b"\x89", hooks) + b"R"
        return b"}" + text("state_dict") + b"}" + text("w") + rebuilt_tensor + b"ss"

    huge = b"\x8a\x08" + struct.pack("<q", 1 << 60)
    negative = b"\x8a\x08" + struct.pack("<q", -(1 << 40))
    return {
        "a storage of exabytes": rebuilt(huge, b"K\x00", args(b"K\x01"), args(b"K\x01")),
        "a storage of negative size": rebuilt(negative, b"K\x00", args(b"K\x01"), args(b"K\x01")),
        "an offset beyond the storage": rebuilt(b"K\x01", huge, args(b"K\x01"), args(b"K\x01")),
        "a negative offset": rebuilt(b"K\x01", negative, args(b"K\x01"), args(b"K\x01")),
        "a shape beyond the storage": rebuilt(b"K\x01", b"K\x00", args(huge), args(b"K\x01")),
        "a negative stride": rebuilt(b"K\x01", b"K\x00", args(b"K\x01"), args(negative)),
        "a product that overflows": rebuilt(b"K\x01", b"K\x00", args(huge, huge), args(b"K\x01", b"K\x01")),
        "one number a quadrillion times": rebuilt(b"K\x01", b"K\x00", args(huge), args(b"K\x00")),
        "an array of exabytes": called("numpy", "ndarray", args(huge), text("u1")),
        "a bytearray of exabytes": called("builtins", "bytearray", huge),
        "a text of 4 GB": b"X\xff\xff\xff\xff" + b"x",
        "a number of 2 GB": b"\x8b\xff\xff\xff\x7f" + b"x",
        "a memo slot of 4 billion": b"Nr\xff\xff\xff\xff",
        "a memo nobody wrote": b"j\xff\xff\xff\xff",
        "a hundred thousand tuples in each other": b"N" + b"\x85" * 100_000,
        "200,000 lists": b"]" * 200_000,
        "200,000 marks": b"(" * 200_000,
        "an empty stack": b"0000",
        "a dictionary of a hundred thousand": b"}("
        + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(100_000))
        + b"u",
        "a key that is a list": b"}]K\x01s",
        "itself": b"}q\x00" + text("state_dict") + b"h\x00s",
    }


def archive(pickled: bytes, *, record: str = "archive/data.pkl", extra: dict[str, bytes] | None = None) -> bytes:
    """Return a file in the current format of torch."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in {
            record: pickled,
            "archive/byteorder": b"little",
            "archive/data/0": bytes(64),
            "archive/version": b"3\n",
            **(extra or {}),
        }.items():
            file.writestr(name, data)
    return content.getvalue()


def tape(pickled: bytes) -> bytes:
    """Return a file in the format of torch before 0.1.10."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            file.addfile(member, io.BytesIO(pickled))
    return content.getvalue()


def carriers(pickled: bytes) -> dict[str, bytes]:
    """Return one pickle in all file formats that a reader of weights may open."""
    zipped, nested = archive(pickled), archive(whole(b"}"))
    return {
        "alone": pickled,
        "zip": zipped,
        "zip without byteorder": archive(pickled, extra={"archive/byteorder": b""}),
        "zip with another root": archive(pickled, record="other/data.pkl"),
        "zip without root": archive(pickled, record="data.pkl"),
        "zip climbing out": archive(pickled, record="../../data.pkl"),
        "zip with code": archive(
            pickled, extra={"archive/code/__torch__.py": b"import os", "archive/constants.pkl": pickled}
        ),
        "zip with constants alone": archive(whole(b"}"), extra={"archive/constants.pkl": pickled}),
        "zip of format 10^9": archive(
            pickled, extra={"archive/.format_version": b"1000000000", "archive/version": b"9" * 40}
        ),
        "zip after a pickle": pickled + nested,
        "pickle after a zip": nested + pickled,
        "zip in a zip": archive(whole(b"}"), extra={"archive/data/1": zipped}),
        "old": MAGIC + SYSTEM_INFO + pickled + whole(b"]"),
        "old, as its magic": pickled + MAGIC,
        "old, as its version": MAGIC[:14] + pickled,
        "old, as its system": MAGIC + pickled + pickled,
        "old, as its keys": MAGIC + SYSTEM_INFO + whole(b"}") + pickled,
        "tape": tape(pickled),
        "package": archive(pickled, record="archive/.data/extern_modules", extra={"archive/model/model.pkl": pickled}),
    }


def tensors_files() -> dict[str, bytes]:
    """Return invalid safetensors files."""

    def file(header: bytes, data: bytes = bytes(16), length: int | None = None) -> bytes:
        return struct.pack("<Q", len(header) if length is None else length) + header + data

    one = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    return {
        "header of exabytes": file(one, length=1 << 62),
        "header of 99 MB": file(one, length=99_000_000),
        "header longer than the file": file(one, length=len(one) + 17),
        "header cut": file(one, length=len(one) - 3),
        "no data": file(one, b""),
        "too much data": file(one, bytes(32)),
        "overlap": file(
            b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
        ),
        "hole": file(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}'
        ),
        "backwards": file(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}'),
        "negative": file(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}'),
        "beyond": file(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,17179869184]}}'),
        "overflow": file(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}'),
        "negative shape": file(b'{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}'),
        "wrong shape": file(b'{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}'),
        "unknown type": file(b'{"a":{"dtype":"OBJECT","shape":[4],"data_offsets":[0,16]}}'),
        "deep": file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "metadata that is a list": file(b'{"__metadata__":["x"],' + one[1:]),
        "no JSON": file(b"{" + b"\xff" * 50),
        "no object": file(b"[]" + b" " * 20),
        "nothing": b"",
        "eight bytes": struct.pack("<Q", 8),
    }
