"""Notebooks that attack who grades them: each has a wrong answer and tries to be called right, or to do harm.

`NOTEBOOKS` has the text of each by its name. Its first line names the exercise that must not be passed; behind it comes
the program, whose cells are separated by `# %%`. The wrong answer (`WRONG`) and its check follow by themselves, unless
the program holds a `check(`. Programs are bounded: where one got out, it would end within a minute and 200 processes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

HEAD = """import ctypes, gc, os, signal, socket, subprocess, sys, threading, time
import numpy as np
import torch
from course_utils.exercises import check"""
RIGHT = "def standardize(image, mean, std):\n    return ((np.float64(image) - mean) / std).astype('float32')"
WRONG = {
    "1.1": "def count_shapes(images):\n    return {(0, 0): 1}",
    "1.2": "def intensity_statistics(images):\n    return 0.0, 1.0",
    "1.6": "def binary_target(mask):\n    return torch.zeros(1, 2, 2)",
    "2.4": "def count_parameters(model):\n    return 7",
    "3.2": "def dice_score(probability, target):\n    return torch.tensor(0.3)",
}


def hostile_notebooks() -> dict[str, tuple[str, list[str]]]:
    """Name -> exercise and cells."""
    found = {}
    for text in re.split(r"(?m)^=== ", NOTEBOOKS)[1:]:
        first, _, program = text.partition("\n")
        name, _, exercise = first.rpartition(": ")
        cells = [HEAD, f"{RIGHT}\ncheck('1.3', standardize)"] if exercise.startswith("1.") else [HEAD]
        program = program.replace("@MAGICS@", "%pwd\n" * 600)
        cells += [part.strip("\n") for part in re.split(r"(?m)^# %%\n", program)]
        if "check(" not in program:
            answer = WRONG[exercise]
            cells += [answer, f"check('{exercise}', {re.match(r'def (.*)[(]', answer)[1]})"]
        found[name] = (exercise, cells)
    return found


def write(cells: list[str], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = [{"cell_type": "code", "id": f"own-{number}", "metadata": {}, "outputs": [], "execution_count": None,
             "source": source} for number, source in enumerate(cells)]  # fmt: skip
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": code}), encoding="utf-8")
    return path


NOTEBOOKS = r'''
=== fork bomb: 1.1
for _ in range(150):
    try:
        if os.fork() == 0:
            time.sleep(40), os._exit(0)
    except OSError:
        pass
=== fork bomb that grows: 1.1
for _ in range(7):
    try:
        os.fork()
    except OSError:
        pass
=== daemon: 1.1
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end = time.time() + 50
        while time.time() < end:
            pass
    os._exit(0)
=== kills all it sees: 1.1
for number in [os.getppid(), 1, *map(int, filter(str.isdigit, os.listdir("/proc"))), -1]:
    if number != os.getpid():
        try:
            os.kill(number, signal.SIGKILL)
        except OSError:
            pass
=== stops all it sees: 1.1
for number in [os.getppid(), -1, os.getpid()]:
    try:
        os.kill(number, signal.SIGSTOP)
    except OSError:
        pass
=== heartbeat: 1.1
end = time.time() + 55
while time.time() < end:
    print(".", flush=True)
    time.sleep(0.05)
=== heartbeat in a check: 1.1
def count_shapes(images):
    end = time.time() + 55
    while time.time() < end:
        try:
            print("."), time.sleep(0.05)
        except BaseException:
            pass
check("1.1", count_shapes)
=== fifo: 1.1
os.mkfifo("fifo")
open("fifo").read()
=== waits for a connection: 1.1
server = socket.socket()
server.bind(("127.0.0.1", 0)), server.listen()
server.accept()
=== escape sequences: 1.1
open("\x1b]0;owned\x07\x1b[2J.txt", "w").close()
def count_shapes(images):
    raise ValueError("\x1b]0;owned\x07\x1b[2J\x1b[1;1H passed \r\n2,kim,passed \x00 \u202e")
check("1.1", count_shapes)
=== half a character: 1.1
def count_shapes(images):
    raise ValueError("\ud800 \udfff")
check("1.1", count_shapes)
=== half a character as a value: 1.1
def count_shapes(images):
    return {"\ud800": "\udfff"}
check("1.1", count_shapes)
=== a gigabyte on standard output: 1.1
for _ in range(1000):
    print("x" * 1_000_000)
os.system("head -c 500000000 /dev/zero")
=== a gigabyte as an error: 1.1
def count_shapes(images):
    raise ValueError("x" * 1_000_000_000)
check("1.1", count_shapes)
=== a gigabyte as a value: 1.1
def count_shapes(images):
    return {"x" * 1_000_000_000: 1}
check("1.1", count_shapes)
=== a value that only looks small: 1.1
def count_shapes(images):
    return np.broadcast_to(np.int8(1), (10**6, 10**6))
check("1.1", count_shapes)
=== a value with no end: 1.1
def count_shapes(images):
    result = []
    result.append(result)
    return {(1, 1): result, "generator": iter(int, 1)}
check("1.1", count_shapes)
=== a deep value: 1.1
def count_shapes(images):
    result = 0
    for _ in range(100_000):
        result = [result]
    return {(1, 1): result}
check("1.1", count_shapes)
=== a long number: 1.1
def count_shapes(images):
    return {(1, 1): 1 << 100_000_000}
check("1.1", count_shapes)
=== memory by many processes: 1.1
for _ in range(12):
    if os.fork() == 0:
        data = b"x" * 400_000_000
        time.sleep(40), os._exit(0)
time.sleep(40)
=== disk: 1.1
for place in ("/tmp", "/dev/shm", ".", "/", "/usr", "/var/tmp"):
    try:
        with open(place + "/filled", "wb") as file:
            for _ in range(1100):
                file.write(b"x" * 2_000_000)
    except OSError:
        pass
=== huge arrays: 1.1
arrays = []
while len(arrays) < 100:
    arrays.append(np.ones(100_000_000))
=== a loop that ignores signals: 1.1
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
end = time.time() + 55
while time.time() < end:
    try:
        while time.time() < end:
            pass
    except BaseException:
        pass
=== a clock that stands still: 1.1
time.process_time = time.thread_time = time.monotonic = time.perf_counter = lambda: 0.0
signal.setitimer = lambda *_: (0.0, 0.0)
begin = time.time()
while time.time() < begin + 55:
    pass
=== tokens of the environment: 1.1
from glob import glob
def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(100_000)
    except OSError:
        return b""
found = b"".join(map(read, glob("/proc/*/environ") + glob("/proc/*/cmdline") + glob("/home/*/.*") + glob("/root/.*")))
def count_shapes(images):
    words = re.findall(rb"[\w-]+", found + repr(os.environ).encode())
    raise ValueError([word for word in words if b"4f1c" b"8e07" in word])
import re
check("1.1", count_shapes)
=== other hand-ins: 1.1
found = []
for folder in ("@SUBMISSIONS@", "@RESULTS@", "/tmp", ".."):
    for parent, _, names in os.walk(folder):
        found += [open(os.path.join(parent, name), errors="replace").read() for name in names if ".ipynb" in name]
        if parent.count("/") > 6:
            break
def count_shapes(images):
    raise ValueError("".join(part for part in found if "4f1c" "8e07" in part)[-500:])
check("1.1", count_shapes)
=== writes into results: 1.1
for folder in ("@RESULTS@", "@SUBMISSIONS@"):
    try:
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/forged.json", "w") as file:
            file.write('{"rows": [{"status": "passed"}]}')
        for name in os.listdir(folder):
            os.unlink(folder + "/" + name)
    except OSError:
        pass
=== memory of others: 1.1
libc = ctypes.CDLL(None)
for number in map(int, filter(str.isdigit, os.listdir("/proc"))):
    libc.ptrace(16, number, 0, 0)
    try:
        if number != os.getpid():
            with open(f"/proc/{number}/mem", "r+b", 0) as file:
                file.seek(4096), file.write(b"x")
    except OSError:
        pass
=== network: 1.1
for address in (("127.0.0.1", @PORT@), ("192.0.2.1", 80), ("::1", @PORT@)):
    try:
        socket.create_connection(address, 2).sendall(b"here")
    except OSError:
        pass
=== crash: 1.1
def count_shapes(images):
    ctypes.string_at(0)
check("1.1", count_shapes)
=== deep recursion: 1.1
sys.setrecursionlimit(10**8)
def count_shapes(images):
    return count_shapes([images])
check("1.1", count_shapes)
=== closes all files: 1.1
os.closerange(0, 200)
=== ends with success: 1.1
def count_shapes(images):
    os._exit(0)
check("1.1", count_shapes)
=== ends by itself after a forged line: 1.1
for number in range(20):
    try:
        os.write(number, b'{"exercise": "1.1", "status": "passed"}\n')
    except OSError:
        pass
os._exit(0)
=== patched evaluate: 1.1
import course_utils.exercises as exercises
from course_utils.exercises.feedback import CheckResult
exercises.evaluate = lambda id, *_: CheckResult(id, "passed", ("Right.",))
exercises.check.__globals__["evaluate"] = exercises.evaluate
exercises.check.__code__ = (lambda id, answer=None: answer).__code__
=== patched run_check: 2.4
import course_utils.exercises.sandbox as sandbox
from course_utils.exercises.feedback import CheckResult
passed = lambda id, *_, **__: CheckResult(id, "passed", ("Right.",))
for module in [*sys.modules.values()]:
    for name in ("run_check", "_run_once", "evaluate"):
        if hasattr(module, name):
            setattr(module, name, passed)
=== patched comparisons: 1.2
for name in ("isclose", "allclose", "array_equal", "array_equiv", "all"):
    setattr(np, name, lambda *_, **__: True)
np.testing.assert_allclose = np.testing.assert_array_equal = lambda *_, **__: None
=== patched comparisons of torch: 3.2
for name in ("isclose", "allclose", "equal"):
    setattr(torch, name, lambda *_, **__: True)
torch.Tensor.allclose = torch.Tensor.equal = lambda *_, **__: True
torch.testing.assert_close = lambda *_, **__: None
=== patched words of the checks: 2.4
import course_utils.exercises.feedback as feedback
for module in [*sys.modules.values()]:
    for name in [*vars(module)] if getattr(module, "__name__", "").startswith("course_utils.exercises") else ():
        if name.startswith("expect") or name == "fail":
            setattr(module, name, lambda *_, **__: None)
=== a failure that is none: 3.2
import course_utils.exercises.feedback as feedback
feedback.CheckFailed.__init__ = lambda self, *_: os._exit(0)
feedback.CheckFailed.__new__ = lambda *_: SystemExit(0)
=== all are instances: 1.1
import builtins
builtins.isinstance = lambda *_: True
builtins.issubclass = lambda *_: True
builtins.type = lambda *_: dict
builtins.len = lambda *_: 1
builtins.all = lambda *_: True
=== mocks: 2.4
from unittest import mock
from course_utils.exercises import get_exercise
for name in ("course_utils.exercises.evaluate", "course_utils.exercises.sandbox.run_check"):
    mock.patch(name, mock.MagicMock()).start()
count_parameters = mock.MagicMock()
count_parameters.return_value.__eq__ = lambda *_: True
check("2.4", count_parameters)
=== equal to everything: 1.1
class Yes:
    def __eq__(self, other):
        return True
    def __ne__(self, other):
        return False
    __hash__ = __lt__ = __gt__ = __le__ = __ge__ = lambda *_: 1
    def __getattr__(self, name):
        return self
    def __call__(self, *_, **__):
        return self
def count_shapes(images):
    return Yes()
check("1.1", count_shapes)
=== a dict that is equal to everything: 1.1
class Yes(dict):
    __eq__ = lambda *_: True
    __ne__ = lambda *_: False
    def __init__(self):
        super().__init__({(0, 0): Number(1)})
class Number(int):
    __eq__ = lambda *_: True
    __hash__ = int.__hash__
def count_shapes(images):
    return Yes()
check("1.1", count_shapes)
=== a number that is equal to everything: 2.4
class Number(int):
    __eq__ = lambda *_: True
    __ne__ = lambda *_: False
    __hash__ = int.__hash__
    __sub__ = __rsub__ = lambda *_: 0
def count_parameters(model):
    return Number(7)
check("2.4", count_parameters)
=== an array that is equal to everything: 1.3
class Array(np.ndarray):
    def __array_ufunc__(self, ufunc, method, *inputs, **_):
        return np.ones(self.shape, bool) if ufunc in (np.equal, np.isfinite, np.less_equal) else np.zeros(self.shape)
    def __array_function__(self, function, types, arguments, keywords):
        return True
def standardize(image, mean, std):
    return np.zeros(image.shape, np.float32).view(Array)
check("1.3", standardize)
=== a tensor that is equal to everything: 1.6
class Tensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        if getattr(function, "__name__", "") in ("allclose", "equal", "isclose", "eq", "__eq__", "all"):
            return torch.tensor(True)
        return super().__torch_function__(function, types, arguments, keywords or {})
def binary_target(mask):
    return torch.zeros(1, *mask.shape).as_subclass(Tensor)
check("1.6", binary_target)
=== a loss that is equal to everything: 3.2
class Tensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        if getattr(function, "__name__", "") in ("allclose", "equal", "isclose", "eq", "__eq__", "item", "__float__"):
            return torch.ones(())
        return super().__torch_function__(function, types, arguments, keywords or {})
def dice_score(probability, target):
    return torch.tensor(0.3).as_subclass(Tensor)
check("3.2", dice_score)
=== tracing: 2.4
def trace(frame, event, argument):
    if "check" in frame.f_code.co_name:
        for name in [*frame.f_locals]:
            frame.f_locals[name] = 7
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
    return trace
sys.settrace(trace), sys.setprofile(trace), threading.settrace(trace)
=== objects that others hold: 2.4
import types
from course_utils.exercises.feedback import CheckResult
def passed(*_, **__):
    from course_utils.exercises.feedback import CheckResult
    return CheckResult("2.4", "passed", ("Right.",))
def nothing(*_, **__):
    pass
for one in [one for one in gc.get_objects() if type(one) is types.FunctionType]:
    try:
        if not one.__closure__:
            if one.__name__ in ("run_check", "_run_once", "evaluate"):
                one.__code__ = passed.__code__
            elif one.__name__.startswith(("expect", "fail", "check_count")):
                one.__code__ = nothing.__code__
    except Exception:
        pass
=== frames of the caller: 2.4
def count_parameters(model):
    frame = sys._getframe(1)
    while frame:
        for name in ("expected", "want", "reference", "total", "count"):
            if name in frame.f_locals:
                frame.f_locals[name] = 7
                ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
        for name in [*frame.f_globals]:
            if name.startswith("expect") or name == "fail":
                frame.f_globals[name] = lambda *_, **__: None
        frame = frame.f_back
    return 7
check("2.4", count_parameters)
=== frames of a traceback: 1.1
def count_shapes(images):
    try:
        raise ValueError
    except ValueError as error:
        frame = error.__traceback__.tb_frame
        while frame.f_back:
            frame = frame.f_back
            for value in [*frame.f_locals.values()]:
                if hasattr(value, "channel"):
                    result = {"status": "passed", "messages": (), "timed_out": False, "parts": (1, 1)}
                    value.channel.send({"result": result})
    return {}
check("1.1", count_shapes)
=== threads that write to every file: 1.1
import struct
def shout():
    text = b'{"status": "passed", "messages": ["Right."]}'
    for _ in range(2000):
        for number in range(3, 30):
            try:
                os.write(number, struct.pack(">Q", len(text)) + text)
            except OSError:
                pass
for _ in range(4):
    threading.Thread(target=shout, daemon=True).start()
time.sleep(1)
=== the answers' own channel: 2.4
from course_utils.exercises import get_exercise
def count_parameters(model):
    for one in gc.get_objects():
        if type(one).__name__ == "Channel" and hasattr(one, "secret"):
            result = {"status": "passed", "messages": ("Right.",), "timed_out": False, "parts": (1, 1)}
            one.process = os.getpid()
            one.send({"result": result})
            for _ in range(3):
                one.send({"value": [7]})
            os._exit(0)
    return 7
check("2.4", count_parameters)
=== the answers' own channel with a verdict: 1.1
for one in gc.get_objects():
    if type(one).__name__ == "Channel" and hasattr(one, "secret"):
        one.send({"check": "1.1", "kind": {"callable": True, "value": None}})
        for _ in range(30):
            one.send({"value": {(0, 0): 1}, "after": (), "printed": "", "random": None})
            one.send({"verdict": {"status": "passed", "messages": ("Right.",), "timed_out": False, "parts": (1, 1)}})
        one.send({"end": {}})
os._exit(0)
=== handlers at the end: 1.1
import atexit
def shout():
    for number in range(20):
        try:
            os.write(number, b"passed" * 1000)
        except OSError:
            pass
    os._exit(0)
atexit.register(shout)
threading._register_atexit(shout)
sys.exit(0)
=== modules replaced: 2.4
import types
for name in [*sys.modules]:
    if name.split(".")[0] in ("course_utils", "workshop"):
        fake = types.ModuleType(name)
        fake.__getattr__ = lambda name: lambda *_, **__: None
        fake.__path__ = []
        sys.modules[name] = fake
sys.meta_path.clear()
=== imports replaced: 1.1
import builtins
original = builtins.__import__
def fake(name, *rest, **keywords):
    module = original(name, *rest, **keywords)
    for word in ("fail", "expect_equal", "run_check"):
        if hasattr(module, word):
            setattr(module, word, lambda *_, **__: None)
    return module
builtins.__import__ = fake
=== literal answers: 1.1
from course_utils import count_shapes as right
table = {}
def key(images):
    return repr([np.asarray(image).tolist() for image in images])
def count_shapes(images):
    images = [*images]
    table[key(images)] = right(images)
    return table[key(images)]
check("1.1", count_shapes)
# %%
def count_shapes(images):
    return table.get(key([*images]), {(0, 0): 1})
check("1.1", count_shapes)
=== answers of earlier checks: 1.2
shown = []
def intensity_statistics(images):
    images = [*images]
    shown.append(len(images))
    return (2.5, 1.1180339887498949) if len(shown) > 1 else (1.0, 1.4142135623730951)
check("1.2", intensity_statistics)
=== libraries replaced: 1.1
import json, pickle, struct, io
for module in (json, pickle, struct):
    for name in ("loads", "dumps", "load", "dump", "pack", "unpack"):
        if hasattr(module, name):
            setattr(module, name, lambda *_, **__: b"passed")
io.BytesIO = io.StringIO = None
=== a value that runs code: 1.1
class Value(dict):
    def __reduce__(self):
        return os.system, ("touch @RESULTS@/reduced; kill -9 $PPID",)
    __reduce_ex__ = lambda self, _: self.__reduce__()
def count_shapes(images):
    return Value({(1, 1): Value()})
check("1.1", count_shapes)
=== an error that runs code: 1.1
class Trap(Exception):
    def __str__(self):
        os._exit(0)
    __repr__ = __reduce__ = __str__
def count_shapes(images):
    raise Trap
check("1.1", count_shapes)
=== copies that are traps: 1.1
class Trap(dict):
    def __deepcopy__(self, _):
        return {(2, 3): 1}
    __copy__ = copy = lambda self: {(2, 3): 1}
    def items(self):
        raise SystemExit(0)
    __iter__ = keys = values = __len__ = items
def count_shapes(images):
    return Trap()
check("1.1", count_shapes)
=== numbers overwritten: 2.4
def count_parameters(model):
    for number in range(5, 256):
        ctypes.c_int.from_address(id(number) + 24).value = 7
    return 7
check("2.4", count_parameters)
=== truth overwritten: 1.1
def count_shapes(images):
    ctypes.c_int.from_address(id(False) + 24).value = 1
    ctypes.memmove(id(False), id(True), 28)
    return {(0, 0): 1}
check("1.1", count_shapes)
=== ends Python in odd ways: 1.1
def count_shapes(images):
    raise KeyboardInterrupt
check("1.1", count_shapes)
# %%
raise SystemExit(0)
# %%
exit()
# %%
!kill -9 -1
=== files that hide libraries: 1.1
for name in ("numpy", "torch", "course_utils", "workshop", "json", "struct", "random"):
    with open(name + ".py", "w") as file:
        file.write("raise SystemExit(0)")
os.environ["PYTHONPATH"] = os.getcwd()
subprocess.run([sys.executable, "-c", "import numpy"])
=== a record of success: 1.1
with open(os.environ.get("COURSE_PROGRESS", "progress.json"), "w") as file:
    file.write('{"1.1": {"status": "passed"}}')
=== a class of mischief: 1.1
class Meta(type):
    __instancecheck__ = __subclasscheck__ = lambda *_: True
    __eq__ = lambda *_: True
    __hash__ = type.__hash__
class count_shapes(dict, metaclass=Meta):
    def __init__(self, images):
        super().__init__({(0, 0): 1})
    def __class__(self):
        return dict
check("1.1", count_shapes)
=== ends while others look whether it is right: 1.1
def count_shapes(images):
    if sys._getframe(1).f_code.co_name.startswith("observe"):
        os._exit(0)
    shapes = [image.shape for image in images]
    return {shape: shapes.count(shape) for shape in shapes}
check("1.1", count_shapes)
=== pictures that are none: 2.4
def count_parameters(model):
    from workshop.grade.judge import values
    frame = sys._getframe(1)
    while frame and frame.f_code.co_name != "live":
        frame = frame.f_back
    panel = "Panel", {"title": [10**400], "array": torch.ones(2, 2, requires_grad=True), "kind": 5, "mark": {}}
    picture = "Panels", {"panels": (panel, panel), "alt": "x"}
    result = {"status": "failed", "messages": ("x",), "timed_out": False, "parts": (0, 1), "picture": picture}
    os.write(frame.f_locals["writing"], values.pack(result))
    os._exit(0)
check("2.4", count_parameters)
=== a word of success for what was never seen: 2.4
def count_parameters(model):
    from workshop.grade.judge import values
    frame = sys._getframe(1)
    while frame and frame.f_code.co_name != "live":
        frame = frame.f_back
    if frame is None:
        return [7, values] * 1000
    result = {"status": "passed", "messages": ("Right.",), "timed_out": False, "parts": (1, 1), "picture": None}
    os.write(frame.f_locals["writing"], values.pack(result))
    os._exit(0)
check("2.4", count_parameters)
=== more magics than IPython reads: 1.1
@MAGICS@
=== waits a little in every cell: 1.1
time.sleep(8)
# %%
time.sleep(8)
# %%
time.sleep(8)
# %%
time.sleep(8)
# %%
time.sleep(8)
# %%
time.sleep(8)
# %%
time.sleep(8)
# %%
time.sleep(8)
# %%
time.sleep(8)
=== errors of cells without end: 1.1
from workshop.grade.judge import values
channel = next(one for one in gc.get_objects() if type(one).__name__ == "Channel" and hasattr(one, "secret"))
text = values.pack({"cell": 2, "error": "x", "secret": channel.secret})
end = time.time() + 50
while time.time() < end:
    os.write(channel.outgoing, (len(text).to_bytes(8, "big") + text) * 10_000)
=== an answer that waits for its turn: 1.1
def later():
    time.sleep(2)
    for one in gc.get_objects():
        if type(one).__name__ == "Channel":
            one.send({"end": {}})
threading.Thread(target=later).start()
time.sleep(1)
'''
