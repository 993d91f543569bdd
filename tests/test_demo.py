"""`pyrnn demo`: it learns which language a name is from, and answers as long as it is asked."""

import fcntl
import io
import itertools
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import numpy as np
import pytest

from pyrnn import data
from pyrnn.app import cli, demo


def test_it_answers_a_pipe(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Papadopoulos\n Kowalski\nЖ\n\nRossi\n"))
    assert cli.main(["demo", "--seconds", "0.3"]) == 0
    out, err = capsys.readouterr()
    greek, polish, strange = out.splitlines()  # nothing after the empty line
    answer = r"(\w+ \d+%, )*\w+ \d+%$"
    assert re.match("Papadopoulos: " + answer, greek)
    assert re.match("Kowalski: " + answer, polish)
    assert strange == "Ж: no name had 'ж', so it cannot say"
    assert re.search(r"right about \d+% of the names that it never saw", err)


@pytest.mark.parametrize("end", [b"\x04", b"\x03"])  # Ctrl-D, Ctrl-C
def test_it_ends_politely_at_a_terminal(end, tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pyrnn", "demo", "--seconds", "0.01"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path,  # not among the sources
        start_new_session=True,  # its own terminal, for Ctrl-C
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    seen, asked, deadline = b"", 0, time.monotonic() + 30
    typed = ["Öztürk\n".encode(), end]
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 1)[0]:
            try:
                read = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            seen += read
            while asked < min(seen.count(b"to end: "), len(typed)):
                os.write(ours, typed[asked])
                asked += 1
    assert process.wait(10) == 0
    os.close(ours)
    assert "Öztürk: " in seen.decode()
    assert seen.count(b"to end: ") == 2
    assert seen.endswith(b"\n")


def test_a_closed_input_asks_nothing(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert cli.main(["demo", "--seconds", "0.001"]) == 0
    assert capsys.readouterr().out == ""


def test_a_seed_gives_the_same_bits():
    def learned(seed):
        guesser, ticks = demo.Guesser(seed), itertools.count()
        parts = list(guesser.learn(3, clock=lambda: next(ticks)))
        assert parts == [1 / 3, 2 / 3, 1]
        return guesser.probabilities(["müller", "wu"])

    first = learned(1)
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(first, learned(1))
    assert not np.array_equal(first, learned(2))


def test_it_learns():
    guesser, ticks = demo.Guesser(0), itertools.count()
    for _ in guesser.learn(60, clock=lambda: next(ticks)):
        pass
    assert guesser.share_right() > 0.25  # always the same language: 0.09
    assert guesser.answer("Papadopoulos").startswith("Greek ")


def test_names_are_judged_that_were_not_learned():
    guesser = demo.Guesser(0)
    assert sorted([*guesser.learned, *guesser.judged]) == list(range(len(data.load_names()[0])))


def test_accents_and_capitals_do_not_matter():
    assert demo.spellings("O'Néill") == ["o'néill", "o'neill"]
    assert demo.spellings("NE\u0301") == ["né", "ne"]  # an accent that is a character of its own
    assert demo.spellings("Wu") == ["wu"]
    guesser = demo.Guesser(0)
    assert guesser.answer("Ñuñez") == guesser.answer("ñuñez")
    assert guesser.answer("Wụ") == guesser.answer("wu")  # no name has that letter, but without its dot all do
