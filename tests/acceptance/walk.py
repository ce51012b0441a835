"""Walk through a page of the tutorial: do what it prints, and compare what comes.

HTML comments before a block say what a reader does by hand:

* ``by hand``: the block is not run (``pip install``: the tests have an environment).
* ``terminal: NAME``: the command runs on, in a terminal of its own. ``stop: NAME`` ends it.
* ``log: NAME``: the lines appear in that terminal, in any order: several processes write there.
* ``file: examples/…/NAME`` and ``save: PATH``: the block is saved; ``append: PATH``: added.
* ``django: a moment`` and ``django: until``: typed into ``manage.py shell``, which stays open; with
  ``until`` it is repeated while the output is another one.

In expected output ``...`` stands for anything.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.rig import WAIT, eventually
from tests.servers.process import ServerProcess

_STEP = re.compile(
    r"(?P<notes>(?:^<!-- [^\n]* -->\n)*)^```(?P<kind>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_CHECKER = doctest.OutputChecker()
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
#: Seconds for what follows a new start of Pulsar: by the page the next try to connect may come
#: after half a minute, and what comes then takes as long as anything.
_RECONNECTED = 30.0 + WAIT
#: Evaluates the program as a shell would, at once, with a mark at the end of the output.
_SHELL = """
import code, doctest, django, sys
django.setup()
names, done = {}, chr(4)
for text in iter(lambda: sys.stdin.readline(), ""):
    for each in doctest.DocTestParser().get_examples(eval(text)):
        exec(compile(each.source, "<shell>", "single"), names)
    print(done, flush=True)
"""


@dataclass
class Walk:
    """One walk through a page, in a folder of its own.

    Attributes:
        folder: where its files are.
        changed: what is replaced in files and commands: ports of this machine.
        env: the environment of its commands.
    """

    folder: Path
    changed: Mapping[str, str]
    env: Mapping[str, str]
    _terminals: dict[str, ServerProcess] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)
    _shell: subprocess.Popen[str] | None = None

    def page(self, path: Path) -> int:
        """Do all that a page says; return how many steps that were."""
        steps = 0
        for found in _STEP.finditer(path.read_text("utf-8")):
            notes = dict(
                re.findall(r"^<!-- ([\w ]+?)(?:: (.*))? -->$", found["notes"], re.MULTILINE)
            )
            steps += self._step(notes, found["kind"], self._with_changes(found["body"]))
        return steps

    def stop(self, terminal: str) -> None:
        """End what runs in a terminal, as Ctrl-C does."""
        self._terminals.pop(terminal).stop()

    def close(self) -> None:
        """End what still runs, the last first."""
        if self._shell is not None:
            self._shell.kill()
            self._shell.communicate()
        for terminal in reversed(self._terminals.values()):
            terminal.stop()

    def _with_changes(self, text: str) -> str:
        for old, new in self.changed.items():
            text = text.replace(old, new)
        return text

    def _step(self, notes: Mapping[str, str], kind: str, body: str) -> int:
        if "by hand" in notes:
            return 0
        if "stop" in notes:
            self.stop(notes["stop"])
        if "file" in notes or "save" in notes:
            self._path(notes.get("save") or Path(notes["file"]).name).write_text(body)
        elif "append" in notes:
            with self._path(notes["append"]).open("a") as file:
                file.write(body)
        elif "log" in notes:
            self._await_lines(notes["log"], body.splitlines())
        elif kind == "pycon":
            self._python(body, notes.get("django"))
        elif kind == "console":
            self._console(body, notes.get("terminal"))
        else:
            return 0
        return 1

    def _path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _console(self, body: str, terminal: str | None) -> None:
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            if terminal is not None:
                self._open(terminal, command, expected)
                continue
            done = subprocess.run(
                command,
                shell=True,
                cwd=self.folder,
                env=self.env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=WAIT,
                check=False,
            )
            assert done.returncode == 0, f"$ {command}\n{done.stdout}"
            if expected:
                self._compare(command, expected, done.stdout)

    def _compare(self, what: str, expected: str, found: str) -> None:
        # A line of its own that is "..." stands for any lines.
        assert _CHECKER.check_output(expected, found, _FLAGS), f"{what}\n{found}\n!=\n{expected}"

    def _open(self, name: str, command: str, expected: str) -> None:
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        terminal = ServerProcess(
            name, ["/bin/sh", "-c", f"exec {command}"], log_path=log, env=self.env, cwd=self.folder
        )
        self._terminals[name] = terminal
        ready = {"redis": "Ready to accept connections", "worker": " ready."}.get(name, expected)
        # In the log of a terminal that is opened again, lines count anew.
        terminal.start(lambda: log.is_file() and ready.strip() in log.read_text(), timeout=45)
        self._read[name] = 0

    def _await_lines(self, name: str, lines: Sequence[str]) -> None:
        log = self.folder / f"{name}.log"
        begin = self._read[name]

        def found() -> bool:
            text = log.read_text()
            ends = []
            for line, count in Counter(lines).items():
                places = [each.end() for each in re.finditer(re.escape(line), text[begin:])]
                if len(places) < count:
                    return False
                ends.append(places[count - 1])
            self._read[name] = begin + max(ends)
            return True

        assert eventually(found, timeout=_RECONNECTED), f"{lines} are not in {log.read_text()}"

    def _python(self, body: str, how: str | None) -> None:
        if how is None:
            path = self._path("typed.txt")
            path.write_text(body)
            self._console("$ python -m doctest -o ELLIPSIS typed.txt\n", None)
            return
        wanted = "".join(each.want for each in doctest.DocTestParser().get_examples(body))
        found = ""

        def same() -> bool:
            nonlocal found
            found = self._typed(body)
            return _CHECKER.check_output(wanted, found, _FLAGS)

        good = eventually(same, timeout=_RECONNECTED) if how == "until" else same()
        assert good, f"{body}\n{found}\n{self._logs()}"

    def _typed(self, body: str) -> str:
        if self._shell is None:
            env = {**self.env, "DJANGO_SETTINGS_MODULE": "webshop.settings"}
            self._shell = subprocess.Popen(
                [str(shutil.which("python", path=env["PATH"])), "-c", _SHELL],
                cwd=self.folder,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{body!r}\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in iter(self._shell.stdout.readline, "\x04\n"):
            assert line, f"the shell ended\n{''.join(lines)}"
            lines.append(line)
        return "".join(lines)

    def _logs(self) -> str:
        return "\n".join(f"{name}: {each.log_tail()}" for name, each in self._terminals.items())


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a reader whose virtual environment is that of the tests."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("STARGATE_")},
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": os.pathsep.join((str(folder), str(Path(__file__).parents[2]))),
        "PYTHONUNBUFFERED": "1",
    }
