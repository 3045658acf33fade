"""The box: what is seen in it, what it may use, and that nothing of it is left.

Tests of bubblewrap are skipped where it does not work; with COURSE_SANDBOX=required they fail instead.
"""

import os
import platform
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from boxes import confined, descendants, tree

from workshop.grade.box import box as box_module
from workshop.grade.box import sandbox as sandbox_module
from workshop.grade.box.box import Box, BoxEnded, Limits, explain_exit
from workshop.grade.box.folders import folder_bytes, own_folder, remove_folder, temporary_folder
from workshop.grade.box.processes import Group, all_processes
from workshop.grade.box.sandbox import Sandbox, SandboxError, find_sandbox
from workshop.grade.box.seccomp import DENIED, seccomp_filter

LINUX = sys.platform.startswith("linux")
# Runs what it is sent, and answers with the value of `result`.
PROGRAM = """
import os, sys, time, signal
FILES, WORK = sys.argv[1:]
def read(size):
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or os._exit(0)
    return data
def write(data):
    data = len(data).to_bytes(8, "big") + data
    while data:
        data = data[os.write(1, data):]
while True:
    names = {**globals(), "result": None}
    source = read(int.from_bytes(read(8), "big")).decode()
    try:
        exec(source, names)
        answer = names["result"]
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    write(str(answer).encode())
"""


@pytest.fixture(scope="module")
def safe():
    return confined()


@pytest.fixture(params=["bubblewrap", "unsafe"])
def any_sandbox(request):
    return confined() if request.param == "bubblewrap" else find_sandbox("unsafe")


@pytest.fixture
def inside(safe):
    with Box(safe, None, Limits(), program=["-c", PROGRAM]) as box:
        yield lambda source: ask(box, source)


def ask(box, source):
    box.send(source.encode())
    return box.receive().decode()


def ended(sandbox, source, limits=Limits(), **settings):  # noqa: B008 (it is frozen)
    """How a box ends that runs this, after a first message."""
    with Box(sandbox, None, limits, program=["-c", PROGRAM], **settings) as box:
        assert ask(box, "result = 1") == "1"
        box.new_budget()
        with pytest.raises(BoxEnded) as info:
            ask(box, source)
        with pytest.raises(BoxEnded, match="."):
            box.receive()  # again and again
    return info.value


# messages


def test_messages_of_any_size_pass_both_ways(any_sandbox):
    with Box(any_sandbox, None, Limits(), program=["-c", PROGRAM]) as box:
        for size in (0, 1, 65535, 65536, 3_000_000):
            assert ask(box, f"result = len({'x' * size!r})") == str(size)
            assert len(ask(box, f"result = 'x' * {size}")) == size


def test_the_box_does_not_wait_for_a_judge_nor_the_judge_for_a_box_that_reads_nothing(any_sandbox):
    started = time.monotonic()
    with Box(any_sandbox, None, Limits(), program=["-c", "import time; time.sleep(60)"]) as box:
        box.send(b"x" * 10_000_000)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("os.write(1, b'\\xff' * 8); time.sleep(60)", "grader's channel"),
        ("os.write(1, (2**26 + 1).to_bytes(8, 'big')); time.sleep(60)", "too large"),
        ("while True: write(b'x' * 100_000)", "wrote more than 2 MB"),
        ("while True: os.write(2, b'x' * 100_000)", "wrote more than 2 MB"),
        ("os._exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
    ],
)
def test_a_box_that_says_too_much_or_ends_itself(any_sandbox, source, message):
    limits = Limits(output=2)
    with Box(any_sandbox, None, limits, program=["-c", PROGRAM]) as box, pytest.raises(BoxEnded, match=message) as info:
        box.send(source.encode())
        while True:
            box.receive()
    assert not info.value.timed_out


def test_a_program_that_cannot_start_says_why(any_sandbox):
    with (
        Box(any_sandbox, None, Limits(), program=["-c", "import nothing_of_this_name"]) as box,
        pytest.raises(BoxEnded, match="exit code 1.*nothing_of_this_name"),
    ):
        box.receive()


def test_exit_codes_are_read_as_a_shell_writes_them():
    assert explain_exit(-9) == explain_exit(137)
    assert explain_exit(137) == "Crash: Python was ended by SIGKILL (usually because memory ran out)."
    assert explain_exit(1) == "Exit: the code ended Python itself, with exit code 1."


# what the box sees


def test_files_are_copies_that_can_be_read_and_not_written(any_sandbox, tmp_path):
    (tmp_path / "sub").mkdir(mode=0o700)
    (tmp_path / "sub" / "mine.py").write_text("x = 1")
    (tmp_path / "sub" / "mine.py").chmod(0o600)
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    before = tree(tmp_path)
    with Box(any_sandbox, tmp_path, Limits(), program=["-c", PROGRAM]) as box:
        assert ask(box, "result = sorted(os.listdir(FILES))") == "['sub']"
        assert ask(box, "result = open(FILES + '/sub/mine.py').read()") == "x = 1"
        assert ask(box, "open(WORK + '/x', 'w').write('x'); result = os.path.samefile(WORK, os.getcwd())") == "True"
        if any_sandbox.safe:
            assert "Error" in ask(box, "open(FILES + '/x', 'w')")
    assert tree(tmp_path) == before


def test_the_environment_is_emptied(any_sandbox, monkeypatch):
    for name in ("SECRET_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "MY_PATH"):
        monkeypatch.setenv(name, "4f1c8e07-secret")
    with Box(any_sandbox, None, Limits(), program=["-c", PROGRAM]) as box:
        assert "4f1c8e07" not in ask(box, "result = dict(os.environ)")
        everything = "from glob import glob\nresult = ''\nfor path in glob('/proc/*/environ'):\n"
        everything += "    try: result += open(path).read()\n    except OSError: pass"
        if any_sandbox.safe:
            assert "4f1c8e07" not in ask(box, everything)


@pytest.mark.parametrize(
    "source",
    [
        "open('/x', 'w')", "open('/dev/x', 'w')", "open('/usr/x', 'w')", "open('/etc/passwd', 'a')",
        "import course_utils; open(course_utils.__file__, 'a')", "open(sys.prefix + '/bin/x', 'w')",
        "open('/proc/sys/kernel/hostname', 'w')", "open('/proc/sysrq-trigger', 'w')", "os.listdir('/home')",
        "os.listdir('/var')", "os.listdir('/run')", "os.listdir('/sys/fs')", "os.sethostname('x')", "os.nice(-5)",
        "os.setuid(0)", "os.chroot('/tmp')", "os.mknod('/tmp/x', 0o60666, 0x800)", "open('/dev/sda')",
        "import socket; socket.create_connection(('192.0.2.1', 80), 3)", "open('/proc/1/mem', 'r+b').read(1)",
        "import socket; socket.getaddrinfo('example.org', 80)", "open('/etc/shadow')", "open('/dev/mem')",
    ],
)  # fmt: skip
def test_what_must_fail_fails(inside, source):
    assert "error:" in inside(source).lower()


@pytest.mark.parametrize("name", ["keyctl", "unshare", "mount", "ptrace", "memfd_create", "shmget", "bpf", "setns"])
def test_denied_system_calls(inside, name):
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("no filter for this machine")
    number = DENIED[name][platform.machine() == "aarch64"]
    call = f"import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.syscall({number}, 0, 0, 0, 0)"
    assert inside(f"{call}; result = ctypes.get_errno()") == "1"  # EPERM


def test_clone_makes_threads_and_processes_but_no_namespaces(inside):
    assert inside("import threading as t; a = t.Thread(target=int); a.start(); a.join(); result = 'made'") == "made"
    assert inside("import subprocess as s; result = s.run(['true']).returncode") == "0"
    call = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); result = libc.syscall({}, 0x10000011, 0, 0, 0, 0)"
    assert inside(call.format({"x86_64": 56, "aarch64": 220}[platform.machine()])) == "-1"
    assert seccomp_filter("riscv64") == b""


def test_nothing_but_the_box_is_seen(inside, safe, tmp_path):
    assert inside("result = sorted(int(name) for name in os.listdir('/proc') if name.isdigit())[-1] < 10") == "True"
    assert inside(f"result = os.path.exists({str(tmp_path)!r})") == "False"
    assert inside(f"result = os.path.exists({str(Path.home() / '.bashrc')!r})") == "False"
    root = Path(box_module.__file__).parents[3]
    seen = inside(f"result = sorted(os.listdir({str(root)!r}))")
    needed = {"course_utils", "workshop", "data", "lib", "lib64", "bin"}
    if Path(sys.prefix).is_relative_to(root):
        needed.add(Path(sys.prefix).relative_to(root).parts[0])
    assert set(eval(seen)) <= needed, "no .git, no grades"
    assert inside("result = sorted(os.listdir('/tmp'))") == "['files', 'home', 'work']"
    assert inside("import socket; result = [name for _, name in socket.if_nameindex()]") == "['lo']"
    with Box(safe, None, Limits(), program=["-c", PROGRAM]) as other:
        ask(other, "open('/tmp/here', 'w'); open('/dev/shm/here', 'w')")
        assert inside("result = os.path.exists('/tmp/here') or os.path.exists('/dev/shm/here')") == "False"


def test_everything_that_the_course_needs_is_there(inside):
    assert "Error" not in inside("import torch, torchvision, skimage, scipy, matplotlib.pyplot, pandas, IPython")
    assert inside("import torch; torch.rand(1000, 1000).sum(); result = torch.cuda.is_available()") == "False"
    assert "Error" not in inside("from course_utils.data import load_data; result = load_data('embedded')")
    assert "Error" not in inside("import multiprocessing as m; q = m.get_context('fork').Queue(); q.put(1); q.get()")
    loader = "from torch.utils.data import DataLoader; result = len(list(DataLoader(torch.ones(8, 3), num_workers=2)))"
    assert inside(f"import torch; {loader}") == "8"
    assert inside("import getpass; result = getpass.getuser()") == "student"
    assert inside("import pwd; result = pwd.getpwuid(os.getuid()).pw_name") == "student"
    assert inside("result = os.system('ls /tmp > /dev/null')") == "0"
    assert inside("import os; result = os.sched_getaffinity(0) and os.cpu_count() > 0") == "True"


@pytest.mark.parametrize("place", ["a folder with spaces", "ünïcode", "a, comma; and 'quotes'"])
def test_python_and_course_in_any_place(safe, tmp_path, place):
    """A virtual environment, linked twice, in a folder that only its owner may enter."""
    home = tmp_path / place
    home.mkdir(mode=0o700)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    (tmp_path / "link").symlink_to(home / "venv")
    python = tmp_path / "link" / "bin" / "python"
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (next((home / "venv" / "lib").glob("*")) / "site-packages" / "others.pth").write_text("\n".join(packages))
    checkout = Path(box_module.__file__).parents[3]
    for name in ("course_utils", "workshop", "data"):
        (home / name).symlink_to(checkout / name)
    program = "from workshop.grade.box.sandbox import *; "
    program += "s = find_sandbox('bubblewrap'); print(try_sandbox(s) or 'fine')"
    done = subprocess.run(
        [python, "-c", program], env={**os.environ, "PYTHONPATH": str(home)}, capture_output=True, text=True
    )
    assert done.stdout == "fine\n", done.stderr


# what the box may use


@pytest.mark.parametrize(
    ("source", "limits", "message"),
    [
        ("while True: pass", Limits(seconds=0.5), "stopped after . seconds of computing"),
        ("time.sleep(60)", Limits(seconds=0.5), "of which it computed for 0"),
        ("signal.pause()", Limits(seconds=0.5), "of which it computed for 0"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", Limits(seconds=0.5), "of which it computed for 0"),
        # a heartbeat: messages and a little computing are no reason to go on
        ("while True: write(b'{}'); time.sleep(0.05)", Limits(seconds=0.5), "Time: "),
        # work in processes that have ended, and in such of which nobody wants to know
        ("while True:\n if not os.fork():\n  sum(range(10**6)); os._exit(0)\n os.wait()", Limits(seconds=1), "comput"),
        ("signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nfor _ in range(2):\n if not os.fork():\n  while True: pass\n"
         "time.sleep(60)", Limits(seconds=1), "computing"),
        # a daemon (without a sandbox it may get away before it is seen; then it is the other's waiting that ends)
        ("if not os.fork():\n os.setsid()\n if not os.fork():\n  os.setsid()\n  while True: pass\n os._exit(0)\n"
         "time.sleep(60)", Limits(seconds=1), "Time: "),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass", Limits(seconds=0.5), "computing"),
        ("x = b'x' * 1500000000; time.sleep(60)", Limits(memory=0), "Memory"),
        ("for _ in range(5):\n if not os.fork():\n  x = b'x' * 3 * 10**8; time.sleep(60)\ntime.sleep(60)",
         Limits(memory=0), "Memory"),
    ],
)  # fmt: skip
def test_limits_that_the_watched_cannot_feed(any_sandbox, source, limits, message):
    started = time.monotonic()
    with Box(any_sandbox, None, limits, program=["-c", PROGRAM]) as box, pytest.raises(BoxEnded, match=message) as info:
        ask(box, "result = 1")
        box.send(source.encode())
        while True:
            box.receive()
    assert info.value.timed_out == ("Time" in info.value.message)
    assert time.monotonic() - started < 15


def test_files_in_memory_count(safe):
    fill = "with open('{}', 'wb') as file:\n for _ in range(700): file.write(b'x' * 10**6)\n"
    source = fill.format("/dev/shm/x") + fill.format("/tmp/x") + "signal.pause()"
    assert "Memory" in ended(safe, source, Limits(memory=0)).message


def test_disk_is_limited(inside):
    fill = "with open('{}', 'wb') as file:\n for _ in range(1200): file.write(b'x' * 10**6)"
    assert "Error" in inside(fill.format("/tmp/work/x"))
    assert "Error" in inside(fill.format("/dev/shm/x"))
    assert inside("result = os.statvfs('/tmp').f_bavail") == "0"


def test_processes_are_limited(safe):
    bomb = "count = 0\ntry:\n while True:\n  if not os.fork(): time.sleep(20); os._exit(0)\n  count += 1\n"
    with Box(safe, None, Limits(), program=["-c", PROGRAM]) as box:
        answer = ask(box, f"{bomb}except OSError: result = count")
        assert int(answer) < 128


def test_the_budget_of_the_notebook_never_starts_again(any_sandbox):
    limits = Limits(seconds=5, notebook=1.5)
    with (
        Box(any_sandbox, None, limits, program=["-c", PROGRAM]) as box,
        pytest.raises(BoxEnded, match="the notebook was stopped") as info,
    ):
        ask(box, "result = 1")
        for _ in range(30):
            box.new_budget()
            ask(box, "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass")
    assert info.value.timed_out


def test_each_step_has_a_budget_of_its_own(any_sandbox):
    with Box(any_sandbox, None, Limits(seconds=1.5), program=["-c", PROGRAM]) as box:
        for _ in range(4):
            box.new_budget()
            ask(box, "end = time.process_time() + 0.7\nwhile time.process_time() < end: pass")


def test_time_in_which_the_judge_does_not_wait_is_not_the_boxes(any_sandbox):
    with Box(any_sandbox, None, Limits(seconds=0.7), program=["-c", PROGRAM]) as box:
        assert ask(box, "result = 1") == "1"
        time.sleep(1.5)
        assert ask(box, "result = 2") == "2"


def test_a_busy_machine_refuses_no_right_work(any_sandbox):
    """Six others on each processor: the box gets one part in seven."""
    spin = "import time\nend = time.time() + 40\nwhile time.time() < end: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(6 * (os.cpu_count() or 1))]
    try:
        limits = Limits(seconds=0.8)
        with Box(any_sandbox, None, limits, program=["-c", PROGRAM]) as box:
            ask(box, "result = 1")
            box.new_budget()
            work = "end = time.process_time() + 0.5\nwhile time.process_time() < end: pass\nresult = 'done'"
            assert ask(box, work) == "done"
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()


# its end


DAEMON = """
for number in (1, 2, 3, 10, 12, 13, 14, 15):
    signal.signal(number, signal.SIG_IGN)
for _ in range(3):
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.setsid()
            if not os.fork():
                time.sleep(100)
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
time.sleep(0.3)
"""


@pytest.mark.parametrize("end", ["result = 'alive'", "os._exit(0)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_nothing_is_left(any_sandbox, end, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = descendants(os.getpid())  # other tests may have left some
    with Box(any_sandbox, None, Limits(seconds=1), program=["-c", PROGRAM]) as box:
        name = box._name
        assert ask(box, "result = 1") == "1"
        try:
            assert ask(box, DAEMON + end) == "alive"
        except BoxEnded:
            assert "alive" not in end
    assert running(name) == []
    assert list(tmp_path.iterdir()) == []
    assert descendants(os.getpid()) <= before


def running(mark):
    found = []
    for number in all_processes():
        try:
            environment = Path(f"/proc/{number}/environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment:
            found.append(number)
    return found


def test_the_box_ends_with_its_grader(safe):
    """Also if that is killed and can say nothing any more."""
    program = f"""
import sys, time
from workshop.grade.box.box import *
from workshop.grade.box.sandbox import find_sandbox
box = Box(find_sandbox("bubblewrap"), None, Limits(), program=["-c", {PROGRAM!r}]).__enter__()
box.send(b"if not os.fork(): os.setsid(); time.sleep(100)\\nresult = 1"); box.receive()
print(box._name, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as grader:
        name = grader.stdout.readline().strip()
        assert len(running(name)) >= 3
        grader.kill()
    deadline = time.monotonic() + 5
    while running(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(name) == []


def test_what_was_left_in_the_folder_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    leave = """
os.mkfifo("fifo"); os.symlink("/etc", "link"); os.mkdir("shut"); open("shut/file", "w").close(); os.chmod("shut", 0)
for _ in range(400):
    os.mkdir("deeper" * 20); os.chdir("deeper" * 20)
import socket; socket.socket(socket.AF_UNIX).bind("s")
"""
    with Box(find_sandbox("unsafe"), None, Limits(), program=["-c", PROGRAM]) as box:
        assert ask(box, leave) == "None"
    assert list(tmp_path.iterdir()) == []
    assert Path("/etc/passwd").exists()


def test_stop_ends_the_box(any_sandbox):
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    assert ended(any_sandbox, "time.sleep(60)", stop=stop).message == "Interrupted."


def test_an_error_in_the_judge_ends_the_box(any_sandbox):
    with pytest.raises(ZeroDivisionError), Box(any_sandbox, None, Limits(), program=["-c", PROGRAM]) as box:
        name = box._name
        raise ZeroDivisionError
    assert running(name) == []


def test_no_thread_and_no_open_file_is_left(any_sandbox):
    def count():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    with Box(any_sandbox, None, Limits(), program=["-c", PROGRAM]) as box:
        ask(box, "result = 1")
    before = count()
    for _ in range(3):
        with Box(any_sandbox, None, Limits(), program=["-c", PROGRAM]) as box:
            ask(box, "result = 1")
    assert count() == before


# looking for a sandbox


def fake(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(not LINUX, reason="bubblewrap is for Linux")
@pytest.mark.parametrize(
    ("script", "settings", "advice"),
    [
        (None, {}, "apt install bubblewrap"),
        ("echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1",
         {"kernel/apparmor_restrict_unprivileged_userns": "1"}, "/etc/apparmor.d/bwrap"),
        ("echo 'bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted' >&2; exit 1",
         {"kernel/apparmor_restrict_unprivileged_userns": "1"}, "apparmor_parser"),
        ("echo 'bwrap: No permissions to create a new namespace' >&2; exit 1",
         {"kernel/unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("echo 'bwrap: Creating new namespace failed' >&2; exit 1", {"user/max_user_namespaces": "0"}, "max_user_"),
        ("exit 7", {}, "exit code 7"),
        ("echo ready; exit 0", {}, None),
    ],
)  # fmt: skip
def test_bubblewrap_is_tried_and_the_message_says_what_to_do(monkeypatch, tmp_path, script, settings, advice):
    for name in ("prlimit", "setpriv"):
        fake(tmp_path, name, "true")
    if script is not None:
        fake(tmp_path, "bwrap", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sandbox_module, "_setting", lambda name: settings.get(name, ""))
    if advice is None:
        assert find_sandbox().kind == "bubblewrap"
        return
    with pytest.raises(SandboxError) as info:
        find_sandbox()
    assert advice in str(info.value) and "--unsafe" in str(info.value) and "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("kind", "image", "platform_name", "message"),
    [
        ("firejail", None, "linux", "choose from: auto, bubblewrap, docker"),
        ("docker", None, "linux", "--image NAME"),
        ("podman", None, "linux", "--image NAME"),
        ("bubblewrap", "python:3.12", "linux", "--sandbox docker"),
        ("auto", None, "darwin", "Docker Desktop"),
        ("auto", None, "win32", "WSL 2"),
    ],
)
def test_other_sandboxes_that_cannot_be(monkeypatch, kind, image, platform_name, message):
    monkeypatch.setattr(sys, "platform", platform_name)
    with pytest.raises(SandboxError, match=message):
        find_sandbox(kind, image)


def test_what_is_not_confined_says_so():
    sandbox = find_sandbox("unsafe")
    assert not sandbox.safe and sandbox.description.startswith("NOT CONFINED (--unsafe)")
    assert Sandbox("bubblewrap", "bwrap").safe and Sandbox("docker", "docker", "course").safe
    assert "image course" in Sandbox("docker", "docker", "course").description


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_the_command_line_of_an_engine(monkeypatch, tmp_path, kind):
    monkeypatch.setenv("SECRET_TOKEN", "4f1c8e07")
    (tmp_path / "a, b").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a, b"))
    with temporary_folder() as folder:
        command = Sandbox(kind, kind, "course:1").command(folder, ["-m", "x"], 600, 5, "box-1")
    assert command[:2] == [kind, "run"]
    engine, python = command[: command.index("course:1")], command[command.index("course:1") + 1 :]
    pairs = set(zip(engine, engine[1:], strict=False))
    for pair in [
        ("--network", "none"), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges"), ("--name", "box-1"),
        ("--memory", "5g"), ("--memory-swap", "5g"), ("--cpus", "1"), ("--pids-limit", "128"), ("--ulimit", "core=0"),
        ("--ulimit", "cpu=601"), ("--user", "61184:61184"), ("--env", "LANG=C.UTF-8"), ("--ipc", "private"),
    ]:  # fmt: skip
        assert pair in pairs, pair
    assert {"--rm", "--read-only", "--interactive"} <= set(engine)
    assert f'type=bind,"source={folder}/files",target=/tmp/files,readonly' in engine
    mounts = [value for key, value in pairs if key == "--mount"]
    assert all(mount.endswith(",readonly") for mount in mounts)
    assert not any("4f1c8e07" in part for part in command)
    assert python[-6:] == ["python3", "-P", "-m", "x", "/tmp/files", "/tmp/work"]


def test_an_engine_is_asked_to_end_what_it_started(monkeypatch, tmp_path):
    """A program that stands in for Docker: it writes down what it is asked, and runs the end of the command line."""
    log = tmp_path / "log"
    script = f'echo "$@" >> {log}\ncase $1 in\n rm) ;;\n inspect) echo 0 ;;\n *) while [ "$1" != python3 ]'
    fake(tmp_path, "docker", f'{script}; do shift; done\n shift; exec {sys.executable} "$@" ;;\nesac')
    work = tmp_path / "there"
    work.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sandbox = Sandbox("docker", str(tmp_path / "docker"), "image")
    with Box(sandbox, None, Limits(), program=["-c", PROGRAM]) as box:
        assert ask(box, "result = 6 * 7") == "42"
        name = box._name
    assert f"rm --force {name}" in log.read_text().splitlines()


# processes and folders


def test_a_group_knows_what_was_computed(any_sandbox):
    work = "end = time.process_time() + {}\nwhile time.process_time() < end: pass"
    with Box(any_sandbox, None, Limits(), program=["-c", PROGRAM]) as box:
        ask(box, f"import os\nif not os.fork():\n exec({work.format(0.4)!r}); os._exit(0)\nos.wait()\n")
        ask(box, work.format(0.3))
        time.sleep(0.3)
        usage = Group(box._process.pid).look()
    assert 0.65 < usage.computed < 1.5
    assert usage.processes >= 1


def test_a_number_that_is_used_again_is_another_process():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        group = Group(process.pid)
        started = group._alive[process.pid].started
        group._alive[process.pid] = group._alive[process.pid].__class__(process.pid, 1, started - 1, 0, 0, 0)
        group.kill()
        assert process.poll() is None
        process.stdin.close()


def test_folders_of_any_shape_are_measured_and_removed(tmp_path):
    rng = random.Random(0)
    top = tmp_path / "top"
    folders, size = [top], 0
    top.mkdir()
    for number in range(200):
        parent = rng.choice(folders)
        if rng.random() < 0.5:
            folders.append(parent / f"folder {number}")
            folders[-1].mkdir()
        else:
            count = rng.randrange(1000)
            (parent / f"{number}.moved").write_bytes(b"x" * count)
            size += count
    assert folder_bytes(top) == size
    for folder in rng.sample(folders, 20):
        folder.chmod(0)
    remove_folder(top)
    assert not top.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_folders_of_a_killed_grader_are_removed_and_those_of_others_stay(tmp_path):
    program = (
        "import os, signal, pathlib\nfrom workshop.grade.box.folders import own_folder\n"
        f"with own_folder('x-', pathlib.Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'deep').mkdir()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (left,) = tmp_path.iterdir()
    with own_folder("x-", tmp_path) as running:
        assert left.exists(), "one that is as new may just be made"
        for folder in (left, running):
            os.utime(folder, (1, 1))
        with own_folder("x-", tmp_path) as new:
            assert {*tmp_path.iterdir()} == {running, new}
    assert not any(tmp_path.iterdir())
