"""What people are shown: nothing twice, nothing that a terminal obeys, and lines that say which run
they are of.
"""

import io
import os
import subprocess
import sys

import pytest

from mlflow_backend.progress import Progress


def test_a_waiting_line_of_the_same_kind_is_said_once_whatever_its_details(capsys):
    progress = Progress()
    for pod in ("quick-1", "quick-2", "quick-3"):
        progress.waiting(f"waiting: no pod: pods {pod} is forbidden", "no pod")
    progress.waiting("starting the container", "starting")
    progress.waiting("waiting: no pod: pods quick-4 is forbidden", "no pod")
    assert capsys.readouterr().err.count("no pod") == 2


def test_nothing_of_others_is_obeyed_by_a_terminal(capsys):
    Progress().say("FAILED: \x1b]0;owned\x07 [/x] [link=https://evil]")
    assert capsys.readouterr().err == (
        "mlflow-compute: FAILED: \\x1b]0;owned\\x07 [/x] [link=https://evil]\n"
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_markup_in_what_is_waited_for_is_shown_as_it_is_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress()
    progress.waiting("pulling image [/x] unmounted volumes=[bundle]")
    progress.output("")
    assert "[/x] unmounted volumes=[bundle]" in sys.stderr.getvalue()


def test_lines_of_several_runs_say_which_run_they_are_of(capsys):
    one, other = Progress(), Progress()
    one.begin("one")
    one.output("alone\n")
    other.begin("other")
    one.output("a\nb")
    one.output("c\n")
    other.output("d\n")
    other.end()
    one.output("alone again\n")
    one.end()
    assert capsys.readouterr().out == "alone\n[one] a\n[one] bc\n[other] d\nalone again\n"


@pytest.mark.parametrize(("pieces", "shown"), [
    (["a", "b\nc\nd", "e\n"], "[one] ab\n[one] c\n[one] de\n"),
    (["10%", "\r20%", "\r", "30%\r\nend\n"], "[one] 10%\r[one] 20%\r[one] 30%\r\n[one] end\n"),
    (["a\r", "\n", "\n", "b"], "[one] a\r\n[one] \n[one] b"),
    (["a\x0cb\u2028c\n", ""], "[one] a\x0cb\u2028c\n"),
])  # fmt: skip
def test_each_line_says_which_run_it_is_of_however_it_is_cut(capsys, pieces, shown):
    one, other = Progress(), Progress()
    one.begin("one")
    other.begin("other")
    for piece in pieces:
        one.output(piece)
    other.end()
    one.end()
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("code", ["ascii", "latin-1"])
def test_an_output_that_cannot_hold_a_character_shows_its_escape(code):
    script = "from mlflow_backend.progress import Progress; Progress().output('snow \\u2603\\n')"
    env = {**os.environ, "PYTHONIOENCODING": code}
    assert (
        subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, check=True
        ).stdout
        == b"snow \\u2603\n"
    )


def test_an_output_that_has_no_reader_any_more_ends_nothing():
    script = (
        "from mlflow_backend.progress import Progress\np = Progress()\nfor n in range(100_000): "
        "p.output(f'{n}\\n')\np.say('still there')"
    )
    shell = f'{sys.executable} -c "$SCRIPT" | head -1; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", shell], env={**os.environ, "SCRIPT": script}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        "0\n",
        "mlflow-compute: still there\n",
    )


def test_words_for_people_that_have_no_reader_any_more_end_nothing():
    script = (
        "from mlflow_backend.progress import Progress\np = Progress()\nfor n in range(100_000): "
        "p.say(f'{n}')\np.output('still there')"
    )
    shell = f'{sys.executable} -c "$SCRIPT" 2>&1 >/dev/null | head -1; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", shell], env={**os.environ, "SCRIPT": script}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "mlflow-compute: 0\n", "")
