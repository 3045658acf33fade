"""What the box does: notebooks of many kinds hand `check` the objects that a kernel would hand it.

Each notebook runs once, in a process that these tests drive through its pipes, as the judge does.
"""

import os
import pickle
import secrets
import subprocess
import sys

from workshop.grade import values

CHECK = "from course_utils.exercises import check\n"


class Driven:
    """A notebook in the box, whose checks ask nothing but what the test asks."""

    def __init__(self, folder, cells, notebook="01_data_exploration", ask=(), verdict="failed", **start):
        self.said = []
        for name in ("files", "work"):
            (folder / name).mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "workshop.grade.inside", str(folder / "files"), str(folder / "work")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        ) as self.process:
            self.send({"start": {"cells": cells, "exercises": ["1.1"], "live": [], "memory": 2, "seconds": 5,
                                 "faults": {}, **start}})  # fmt: skip
            while message := self.receive():
                self.said.append(message)
                if "check" in message:
                    for question in ask:
                        self.send(question)
                        self.said.append(self.receive())
                    self.send({"verdict": {"status": verdict, "messages": ["No."], "timed_out": False}})

    def send(self, message):
        self.secret = secrets.token_hex(8)
        payload = values.pack(message | {"secret": self.secret})
        self.process.stdin.write(len(payload).to_bytes(8, "big") + payload)
        self.process.stdin.flush()

    def receive(self):
        if header := self.process.stdout.read(8):
            message = values.unpack(self.process.stdout.read(int.from_bytes(header, "big")))
            assert message.pop("secret") == self.secret
            return message
        return None

    def all(self, word):
        return [message[word] for message in self.said if word in message]


def numbered(sources, seconds=5):
    return [{"number": number, "source": source, "seconds": seconds} for number, source in enumerate(sources, 1)]


def call(*arguments, **options):
    request = pickle.dumps((arguments, options, None))
    return {"call": request, "seconds": 1.6, "traced": False}


def test_a_call_comes_back(tmp_path):
    cells = [CHECK, "def count_shapes(images): return len(images)", "check('1.1', count_shapes)"]
    run = Driven(tmp_path, numbered(cells), ask=[call([1, 2])])
    assert run.all("check") == ["1.1"] and values.unpack(run.all("value")[0]) == 2
