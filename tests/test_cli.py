"""The command line: what it prints, where, with which exit code; that it is stopped and killed without harm."""

import contextlib
import errno
import io
import json
import math
import os
import random
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from cells import python, python_environment
from click.shell_completion import ShellComplete

import pyrnn
from pyrnn.app import charmodel, cli, run, terminal
from pyrnn.app import trainer as training
from pyrnn.core import files
from pyrnn.text.corpus import Vocabulary

TEXT = "".join(f"строка {k}: the brown fox jümps over 漢字 {k * 7919 % 97}\n" for k in range(60))
SMALL = ["--hidden", "12", "--embed", "4", "--batch", "4", "--steps", "16", "--lr", "0.01"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory with a text to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def start(*arguments, **options):
    """The command line in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"} | options
    return subprocess.Popen([sys.executable, "-m", "pyrnn", *arguments], **pipes)


def wait_for_files(process, names, seconds=20):
    """Until the process has written them."""
    end = time.monotonic() + seconds
    while not all(map(os.path.exists, names)):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


def refused(capsys, *arguments, code=1):
    """The one line on stderr of a call that fails."""
    assert cli.main(list(arguments)) == code
    _out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[-1].startswith("Error: ")
    assert sum(line.startswith("Error") for line in lines) == 1
    assert "Traceback" not in err
    return lines[-1]


# ---------------------------------------------------------------------------------------------------- the main way


def test_train_sample_eval_in_processes(here):
    process = start("train", "text.txt", *SMALL, "--epochs", "4", "--plot", "loss.png", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    results = json.loads(out.splitlines()[-1])
    assert list(results) == [
        "valid_bits_per_char", "train_bits_per_char", "chars_per_second", "seconds", "parameters", "model",
    ]  # fmt: skip
    size = len(set(TEXT))
    assert results["parameters"] == size * 4 + 4 * 12 * (4 + 12 + 2) + size * (12 + 1)
    assert results["model"] == "model.safetensors"
    assert 0 < results["valid_bits_per_char"] < math.log2(size)
    assert 0 < results["train_bits_per_char"] < math.log2(size)
    assert results["chars_per_second"] > 0 < results["seconds"]
    assert len(out) > 500  # a sample
    assert "\r" not in err
    assert "%|" not in err
    assert (here / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(here)) == ["loss.png", "model.resume.safetensors", "model.safetensors", "text.txt"]

    process = start("sample", "model.safetensors", "--prompt", "漢字 т", "--length", "30", "--seed", "1")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("漢字 т")
    assert out.endswith("\n")
    assert len(out) == 4 + 30 + 1

    process = start("eval", "model.safetensors", "text.txt", "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    results = json.loads(out)
    assert list(results) == ["bits_per_char", "characters"]
    assert results["characters"] == len(TEXT)
    model = charmodel.load_model("model.safetensors")
    assert results["bits_per_char"] == charmodel.bits_per_character(model, model.vocabulary.encode(TEXT))


def test_samples(here, capsys):
    model = charmodel.CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0)
    charmodel.save_model("m", model, {})

    def sample(*arguments):
        assert cli.main(["sample", "m", *arguments]) == 0
        return capsys.readouterr().out

    assert sample("--seed", "1") == sample("--seed", "1") != sample("--seed", "2")
    assert sample() != sample()
    assert sample("--temperature", "0", "--length", "0", "--prompt", "fox") == "fox\n"
    expected = "fox" + "".join(charmodel.sample(model, "fox", 20, 1.5, 3)) + "\n"
    assert sample("--prompt", "fox", "--length", "20", "--temperature", "1.5", "--seed", "3") == expected


@pytest.mark.parametrize("form", ["bfloat16", "int8"])
def test_weights_in_fewer_bits(here, capsys, form):
    """Of the file as it is, and of one whose weights are so already."""
    model = charmodel.CharModel(Vocabulary.of(TEXT), "gru", 4, 8, rng=0)
    charmodel.save_model("m", model, {})
    frozen = model.quantize(form)
    pyrnn.save("small", frozen)
    assert os.path.getsize("small") < os.path.getsize("m")
    bits = charmodel.bits_per_character(frozen, model.vocabulary.encode(TEXT))
    assert bits == pytest.approx(charmodel.bits_per_character(model, model.vocabulary.encode(TEXT)), abs=0.05)
    text = "".join(charmodel.sample(frozen, "fox", 20, 1.0, 3))
    for file, options in (("m", ["--weights", form]), ("small", []), ("small", ["--weights", form])):
        assert cli.main(["eval", file, "text.txt", "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out)["bits_per_char"] == bits
        assert cli.main(["sample", file, "--prompt", "fox", "--length", "20", "--temperature", "1", "--seed", "3",
                         *options]) == 0  # fmt: skip
        assert capsys.readouterr().out == f"fox{text}\n"
    other = {"int8": "bfloat16", "bfloat16": "int8"}[form]
    assert cli.main(["eval", "small", "text.txt", "--weights", other]) == 1
    assert f"small: its weights are of {form}, and cannot become {other}" in capsys.readouterr().err
    assert cli.main(["eval", "m", "text.txt", "--weights", "int4"]) == 2


def test_eval_prints_words(here, capsys):
    charmodel.save_model("m", charmodel.CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0), {})
    assert cli.main(["eval", "m", "text.txt"]) == 0
    assert re.fullmatch(rf"\d\.\d{{4}} bits per character over {len(TEXT):,} characters\n", capsys.readouterr().out)


def test_train_on_several_files_is_train_on_all_of_them(here):
    (here / "a.txt").write_text(TEXT[:1000], encoding="utf-8")
    (here / "b.txt").write_bytes(b"\xef\xbb\xbf" + TEXT[1000:].encode())
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1", "--out", "one"]) == 0
    assert cli.main(["train", "a.txt", "b.txt", *SMALL, "--epochs", "1", "--out", "two"]) == 0
    assert (here / "one").read_bytes() == (here / "two").read_bytes()


def test_train_without_a_text(here, capsys):
    assert cli.main(["train", *SMALL, "--steps", "32", "--batch", "256", "--seconds", "0.1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "Python's language reference" in err
    assert json.loads(out.splitlines()[-1])["seconds"] >= 0.1


@pytest.mark.parametrize("option", [["--cell", "gru"], ["--cell", "rnn"], ["--layers", "3"]])
def test_train_options(here, option):
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1", *option]) == 0
    assert charmodel.load_model("model.safetensors").sizes[option[0][2:]] == (
        int(option[1]) if option[1].isdigit() else option[1]
    )


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^pyrnn +\d", out, re.M)
    assert re.search(r"^threads +\d+$", out, re.M)
    assert "instruction set" in out
    assert re.search(r"^bfloat16 +products (by an instruction of this CPU|as float32, of rounded numbers)$", out, re.M)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "--help"], ["sample", "--help"], ["eval", "--help"]])
def test_help(capsys, arguments):
    assert cli.main(arguments) == 0
    assert "Usage: pyrnn" in capsys.readouterr().out


def test_import_brings_numpy_alone(tmp_path):
    program = "import sys, pyrnn; print({'click', 'tqdm', 'safetensors', 'matplotlib'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, encoding="utf-8") == "set()\n"


# ---------------------------------------------------------------------------------------------------- stop and resume


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_resumed_to_the_same_bits(here, number, code):
    """A run that is sent a signal, and at once another one, in the middle of its 12th batch and of its first save."""
    program = (
        "import os, sys; from pyrnn.app import cli, trainer\n"
        "def interrupted(function, when):\n"
        "    def wrapped(*arguments, **options):\n"
        "        result = function(*arguments, **options)\n"
        f"        if when(): [os.kill(os.getpid(), {int(number)}) for _ in range(2)]\n"
        "        return result\n"
        "    return wrapped\n"
        "batches = iter(range(10**6))\n"
        "trainer.cross_entropy = interrupted(trainer.cross_entropy, lambda: next(batches) == 11)\n"
        "os.fsync = interrupted(os.fsync, lambda: True)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["train", "text.txt", *SMALL, "--epochs", "3"]
    command = [sys.executable, "-c", program, *arguments, "--out", "my model.safetensors"]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    assert process.returncode == code, process.stderr
    assert "pyrnn train --resume --out 'my model.safetensors'" in process.stderr
    assert "Traceback" not in process.stderr
    assert run.Resumed.read("my model.safetensors").progress["done"] == 12
    assert charmodel.load_model("my model.safetensors")
    assert cli.main(["train", "--resume", "--out", "my model.safetensors"]) == 0
    assert cli.main([*arguments, "--out", "whole"]) == 0
    assert (here / "whole").read_bytes() == (here / "my model.safetensors").read_bytes()
    resumed, whole = run.Resumed.read("my model.safetensors"), run.Resumed.read("whole")
    assert resumed.arrays.keys() == whole.arrays.keys()
    assert all(resumed.arrays[name].tobytes() == whole.arrays[name].tobytes() for name in whole.arrays)


@contextlib.contextmanager
def ended(process):
    """A process that does not outlive the block, whatever happens in it."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("ignored", [False, True])
def test_the_end_of_the_terminal_saves_unless_it_is_ignored(here, ignored):
    """SIGHUP; a training under nohup goes on."""
    with contextlib.ExitStack() as stack:
        if ignored:
            stack.callback(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        process = start("train", "text.txt", *SMALL, "--epochs", "60" if ignored else "100000")
    with ended(process):
        assert "characters to train on" in process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=120)
    if ignored:
        assert process.returncode == 0, err
    else:
        assert process.returncode == 129, err
        assert "Go on with: pyrnn train --resume --out model.safetensors" in err
    assert run.Resumed.read("model.safetensors").progress["done"] > 0


def test_a_closed_terminal_saves(here):
    """The real thing: a terminal of which nobody reads any more."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(pyrnn.__file__))}
    program = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "from pyrnn.app import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "train", "text.txt", *SMALL, "--epochs", "1000000"]
    pipes = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with ended(subprocess.Popen(command, **pipes, start_new_session=True, env=environment)) as process:
        os.close(theirs)
        seen = b""
        while b"epoch" not in seen and select.select([ours], [], [], 20)[0]:
            seen += os.read(ours, 1000)
        os.close(ours)
        assert process.wait(timeout=60) == 129
    assert run.Resumed.read("model.safetensors").progress["done"] > 0


def test_what_a_killed_training_left_is_removed_at_the_next_start(here):
    for name in (".model.safetensors.99999999.tmp", ".model.resume.safetensors.1.tmp"):
        (here / name).write_bytes(b"half")
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1"]) == 0
    assert sorted(os.listdir(here)) == ["model.resume.safetensors", "model.safetensors", "text.txt"]


def test_a_killed_run_leaves_whole_files(here, monkeypatch):
    """A run that writes its files after every batch, killed at a random moment."""
    program = "import sys; from pyrnn.app import cli, trainer; trainer.SAVE_EVERY = 0.0; cli.main(sys.argv[1:])"
    rng = random.Random(0)
    for k in range(3):
        arguments = ["train", "text.txt", *SMALL, "--epochs", "1000"] if k == 0 else ["train", "--resume"]
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL)
        wait_for_files(process, ["model.safetensors", "model.resume.safetensors"])
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.wait()
        assert charmodel.load_model("model.safetensors")
        assert run.Resumed.read("model.safetensors").progress["done"] > 0


def test_two_trainings_do_not_write_the_same_files(here, capsys):
    """Be it the model or the state that they share, and by whatever names; what a killed one left is no hindrance."""
    (here / "link").symlink_to("m.safetensors")
    with ended(start("train", "text.txt", *SMALL, "--epochs", "100000", "--out", "m.safetensors")) as process:
        assert "characters to train on" in process.stderr.readline()
        for out, shown in [
            ("m.safetensors", "m.safetensors"),
            ("m", "m.resume.safetensors"),
            ("link", "link"),
            ("m.resume.safetensors", "m.resume.safetensors"),
        ]:
            for how in (["text.txt", *SMALL], ["text.txt", "--overwrite", *SMALL], ["--resume"]):
                message = refused(capsys, "train", *how, "--epochs", "1", "--out", out)
                assert message == f"Error: {shown} is being written already"
        assert process.poll() is None
    assert ".m.safetensors.lock" in os.listdir(here)
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1", "--out", "m.safetensors", "--overwrite"]) == 0
    assert sorted(os.listdir(here)) == ["link", "m.resume.safetensors", "m.safetensors", "text.txt"]


def test_a_finished_run_goes_on_when_it_is_given_more(here, capsys):
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1"]) == 0
    before = (here / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert cli.main(["train", "--resume", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "finished after its 1 epochs" in err
    assert json.loads(out.splitlines()[-1])["valid_bits_per_char"] > 0
    assert (here / "model.safetensors").read_bytes() == before
    assert cli.main(["train", "--resume", "text.txt", "--hidden", "12", "--epochs", "3"]) == 0
    assert run.Resumed.read("model.safetensors").progress["characters"] > 2000
    assert (here / "model.safetensors").read_bytes() != before


def test_resume_refuses(here, capsys):
    assert "model.resume.safetensors: no such file" in refused(capsys, "train", "--resume")
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1"]) == 0
    message = refused(capsys, "train", "--resume", "--hidden", "13", code=2)
    assert "--hidden 13 contradicts the training to resume, which has 12" in message
    (here / "text.txt").write_text(TEXT + "more", encoding="utf-8")
    assert "the text is not the one" in refused(capsys, "train", "--resume")
    (here / "text.txt").unlink()
    assert "text.txt: no such file" in refused(capsys, "train", "--resume")


# ---------------------------------------------------------------------------------------------------- what is there


def test_version_and_short_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pyrnn {pyrnn.__version__}\n"
    for command in ([], *([name] for name in cli.cli.commands)):
        assert cli.main([*command, "-h"]) == 0
        out = capsys.readouterr().out
        assert "usage: pyrnn" in out.lower()
        assert command or "..." not in out.split("Commands:")[1]  # none is cut


def test_the_tab_key_completes(monkeypatch):
    monkeypatch.setitem(sys.modules, "bench", types.SimpleNamespace(OPS={"lstm": 1, "linear": 2, "gru": 3}))
    completion = ShellComplete(cli.cli, {}, "pyrnn", "_PYRNN_COMPLETE")
    for words, incomplete, expected in [
        ([], "s", ["sample", "show"]),
        (["train"], "--r", ["--resume"]),
        (["train", "--cell"], "l", ["lstm", "layernormlstm"]),
        (["hopfield", "--rule"], "", list(cli.RULES)),
        (["eval", "m", "t", "--weights"], "", list(cli.FORMS)),
        (["bench", "gru"], "l", ["lstm", "linear"]),
        (["data"], "s", ["sentiment", "series", "shakespeare"]),
    ]:
        assert [item.value for item in completion.get_completions(words, incomplete)] == expected, words
    files = (["train"], ["train", "--out"], ["sample"], ["eval", "m"], ["show", "--out"], ["hopfield", "--load"])
    for words in files:
        (item,) = completion.get_completions(words, "mod")
        assert (item.value, item.type) == ("mod", "file"), words


def test_completion_is_told_for_every_shell():
    page = Path(__file__).parents[1] / "docs" / "command_line.md"
    places = [" ".join(cli.COMPLETION.split())]
    if page.is_file():  # among the sources
        places.append(page.read_text(encoding="utf-8").replace("\\|", "|"))
    for text in places:
        assert all(f'eval "$(_PYRNN_COMPLETE={shell}_source pyrnn)"' in text for shell in ("bash", "zsh"))
        assert "_PYRNN_COMPLETE=fish_source pyrnn | source" in text
        assert "compinit" in text  # without it zsh has no compdef, which the line calls


def test_bash_completes(here):
    """What bash runs at the Tab key, through what the line in ~/.bashrc defines."""
    (here / "pyrnn").write_text(f'#!/bin/sh\nexec {sys.executable} -m pyrnn "$@"\n')
    (here / "pyrnn").chmod(0o755)
    script = (
        'eval "$(_PYRNN_COMPLETE=bash_source pyrnn)"; COMP_WORDS=(pyrnn train --cell gr); COMP_CWORD=3; '
        '_pyrnn_completion pyrnn; echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=here, capture_output=True, encoding="utf-8", timeout=60
    )
    assert run.stdout == "gru\n", run.stderr


def test_info_as_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == pyrnn.__version__
    assert facts["instruction_set"] in facts["instruction_sets"] == pyrnn.kernels.isas()
    assert facts["threads"] == pyrnn.get_num_threads()
    assert facts["bfloat16_products"] == ("instruction" if "bf16" in facts["instruction_set"] else "float32")


@pytest.mark.parametrize("setting", ["PYRNN_ISA", "PYRNN_NUM_THREADS"])
@pytest.mark.parametrize("command", [["-m", "pyrnn"], ["pyrnn"]])
def test_wrong_settings_are_one_line(here, setting, command):
    if command == ["pyrnn"]:  # as pip writes it
        (here / "pyrnn").write_text("import sys\nfrom pyrnn.app.cli import main\nsys.exit(main())\n")
        command = [str(here / "pyrnn")]
    run = {"capture_output": True, "encoding": "utf-8", "env": python_environment(**{setting: "many"}), "timeout": 60}
    process = subprocess.run([sys.executable, *command, "info"], **run)
    assert (process.returncode, process.stdout) == (1, "")
    assert re.fullmatch(rf"Error: {setting} is 'many', expected .+\n", process.stderr)
    assert f"{setting} is 'many'" in python("import pyrnn", ok=False, **{setting: "many"}).splitlines()[-1]


@pytest.mark.parametrize("module", ["numpy", "click", "tqdm"])
@pytest.mark.parametrize("command", [["-m", "pyrnn"], ["pyrnn"]])
def test_an_interrupt_while_it_starts_is_silent(here, module, command):
    """In the middle of an import, be it of the package, of the command line or of one command."""
    (here / "pyrnn").write_text("import sys\nfrom pyrnn.app.cli import main\nsys.exit(main())\n")
    lines = ["import os, signal, time", f"os.kill(os.getpid(), {int(signal.SIGINT)})", "time.sleep(60)"]
    (here / f"{module}.py").write_text("\n".join(lines))
    model = charmodel.CharModel(Vocabulary.of(TEXT), "rnn", 4, 4, rng=0)
    charmodel.save_model("m", model, {})
    environment = os.environ | {"PYTHONPATH": f"{here}:{os.path.dirname(os.path.dirname(pyrnn.__file__))}"}
    process = subprocess.run(
        [sys.executable, *command, "eval", "m", "text.txt"], capture_output=True, encoding="utf-8", env=environment,
        timeout=60,
    )  # fmt: skip
    assert process.returncode in (130, -signal.SIGINT)  # a shell calls both 130
    assert (process.stdout, process.stderr.strip()) == ("", "")


def test_in_a_thread(here):
    """Where there are no signals to wait for."""
    codes = []
    run = lambda: codes.append(cli.main(["train", "text.txt", *SMALL, "--epochs", "1"]))  # noqa: E731
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert codes == [0]
    assert charmodel.load_model("model.safetensors")


def test_the_standard_input_is_a_text(here):
    with open("text.txt", "rb") as text:
        process = start("train", "-", *SMALL, "--epochs", "1", "--out", "piped", stdin=text)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "standard input: " in err
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1", "--out", "named"]) == 0
    assert (here / "piped").read_bytes() == (here / "named").read_bytes()

    process = start("eval", "piped", "-", "--json", stdin=subprocess.PIPE)
    out, err = process.communicate(TEXT, timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["characters"] == len(TEXT)

    process = start("train", "--resume", "--epochs", "2", "--out", "piped", stdin=subprocess.DEVNULL)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1][:7]) == (2, "Error: ")
    assert "from the standard input: give it again, with -" in err
    process = start("train", "-", "--resume", "--epochs", "2", "--out", "piped", stdin=subprocess.PIPE)
    _, err = process.communicate(TEXT, timeout=60)
    assert process.returncode == 0, err
    assert run.Resumed.read("piped").progress["characters"] > len(TEXT)


def test_a_bad_standard_input(here, capsys, monkeypatch):
    for stdin, message in [
        (io.TextIOWrapper(io.BytesIO(b"\xff\xfe")), "standard input is not UTF-8 text: byte 0xff at position 0"),
        (io.TextIOWrapper(io.BytesIO(b"")), "- is too short: 0 characters"),
        (None, "the standard input is closed"),
    ]:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert message in refused(capsys, "train", "-")
    assert os.listdir(here) == ["text.txt"]


def test_an_earlier_training_is_not_overwritten(here, capsys):
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1"]) == 0
    before = {name: (here / name).read_bytes() for name in os.listdir(here)}
    message = refused(capsys, "train", "text.txt", *SMALL, "--epochs", "2", code=2)
    assert message.startswith("Error: model.safetensors exists: --resume goes on")
    assert "--overwrite" in message
    (here / "model.safetensors").unlink()
    message = refused(capsys, "train", "text.txt", *SMALL, "--epochs", "2", code=2)
    assert message.startswith("Error: model.resume.safetensors exists")
    assert "exclude each other" in refused(capsys, "train", "--resume", "--overwrite", code=2)
    (here / "model.safetensors").write_bytes(before["model.safetensors"])
    assert {name: (here / name).read_bytes() for name in os.listdir(here)} == before
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "2", "--overwrite"]) == 0
    assert run.Resumed.read("model.safetensors").length.epochs == 2


def test_a_training_that_diverges_has_an_exit_code(here, capsys):
    message = refused(capsys, "train", "text.txt", *SMALL, "--epochs", "3", "--lr", "1e9")
    assert re.search(
        r"diverged to \S+ bits per character after \d+ batches: the learning rate 1e\+09 is too high", message
    )
    assert os.listdir(here) == ["text.txt"]


def test_what_cannot_be_kept_is_refused_with_the_reason(here, capsys):
    (here / "long.txt").write_text(TEXT * 40, encoding="utf-8")
    arguments = ["train", "long.txt", "--batch", "1", "--steps", "5000000", "--seconds", "0.001"]
    assert "seconds, more than the 0.001 of the whole training" in refused(capsys, *arguments)
    message = refused(capsys, "train", "text.txt", "--batch", "1000")
    assert "text.txt is too short for a batch of 1000 rows: each would have 2 characters" in message
    assert sorted(os.listdir(here)) == ["long.txt", "text.txt"]


def test_a_damaged_state_is_one_line(here, capsys):
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1"]) == 0
    arrays, description = files.load("model.resume.safetensors", run.RESUME_KIND)
    whole = (here / "model.resume.safetensors").read_bytes()
    (here / "model.resume.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "model.resume.safetensors is damaged: array " in refused(capsys, "train", "--resume")
    for change, message in [
        ({"settings": description["settings"] | {"steps": "x"}}, "steps is 'x', expected an integer"),
        (
            {"settings": description["settings"] | {"hidden": 20_000}},
            "hidden 20000, layers 1) are not those of its arr",
        ),
        ({"settings": description["settings"] | {"layers": 60_000}}, "layers 60000) are not those of its arrays"),
        ({"progress": description["progress"] | {"done": -5}}, "done is -5, expected at least 0"),
        ({"length": {}}, "length: epochs is None and seconds None"),
    ]:
        files.save("model.resume.safetensors", arrays, description | change)
        line = refused(capsys, "train", "--resume", "--epochs", "2")
        assert "model.resume.safetensors: " in line
        assert message in line


# ---------------------------------------------------------------------------------------------------- odd names


def test_names_that_are_not_utf_8(here):
    """Of the folder, the text, the model and the picture; the command to go on is one that a shell reads."""
    folder = os.fsencode(here) + b"/d\xe9"
    os.mkdir(folder)
    with open(folder + b"/t\xff.txt", "w", encoding="utf-8") as text:
        text.write(TEXT)
    program = (
        "import os, signal, sys; from pyrnn.app import cli, trainer\n"
        "step, k = trainer.Trainer._step, iter(range(10**6))\n"
        "trainer.Trainer._step = lambda t: (step(t), next(k) == 20 and os.kill(os.getpid(), signal.SIGTERM))\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["train", b"t\xff.txt", *SMALL, "--epochs", "3", "--out", b"m'\xff", "--plot", b"\xfe.png", "--json"]
    process = subprocess.run([sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, timeout=60)
    assert process.returncode == 143, process.stderr
    assert sorted(os.listdir(folder)) == [b"m'\xff", b"m'\xff.resume.safetensors", b"t\xff.txt", b"\xfe.png"]
    command = process.stderr.decode().rpartition("Go on with: pyrnn ")[2].strip()
    assert command == r"train --resume --out $'\x6d\x27\xff'"
    command = f"{shlex.quote(sys.executable)} -m pyrnn {command} --json"
    process = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, timeout=60)
    assert process.returncode == 0, process.stderr
    assert os.fsencode(json.loads(process.stdout.splitlines()[-1])["model"]) == b"m'\xff"
    process = start("eval", b"m'\xff", b"t\xff.txt", cwd=folder)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "bits per character" in out


def test_a_name_too_long_for_its_state_is_found_before_the_training(here, capsys):
    for name in ("m" * 240, "m" * 256):  # the state's name is longer than the model's
        assert "File name too long" in refused(capsys, "train", "text.txt", *SMALL, "--epochs", "1", "--out", name)
    assert os.listdir(here) == ["text.txt"]
    name = "m" * 232
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1", "--out", name]) == 0
    assert sorted(os.listdir(here)) == [name, f"{name}.resume.safetensors", "text.txt"]


# ---------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "text.txt is too short: 0 characters"),
        (b"abc", "text.txt is too short: 3 characters"),
        (b"ab" * 30, "text.txt is too short: 54 characters to train on"),
        (b"ab" * 30, "a batch of 64 rows needs at least 65"),
        (b"\x7fELF\x02\x01\xff", "text.txt is not UTF-8 text: byte 0xff at position 6"),
        ("Grüße".encode("latin-1") * 50, "text.txt is not UTF-8 text: byte 0xfc at position 2"),
    ],
)
def test_train_refuses_a_text(here, capsys, content, message):
    (here / "text.txt").write_bytes(content)
    assert message in refused(capsys, "train", "text.txt", "--batch", "64")
    assert os.listdir(here) == ["text.txt"]


def test_train_refuses(here, capsys):
    for arguments, code, message in [
        (["none.txt"], 1, "none.txt: no such file"),
        (["."], 1, ". is a directory"),
        (["text.txt", "--epochs", "1", "--seconds", "1"], 2, "--epochs and --seconds exclude each other"),
        (["text.txt", "--hidden", "0"], 2, "--hidden"),
        (["text.txt", "--hidden", "many"], 2, "--hidden"),
        (["text.txt", "--lr", "0"], 2, "--lr"),
        (["text.txt", "--lr", "nan"], 2, "--lr"),
        (["text.txt", "--seconds", "inf"], 2, "--seconds"),
        (["text.txt", "--seed", "-1"], 2, "--seed"),
        (["text.txt", "--cell", "transformer"], 2, "--cell"),
        (["text.txt", "--what"], 2, "--what"),
        (["text.txt", "--out", "no/where.safetensors"], 1, "there is no directory"),
        (["text.txt", "--out", "."], 1, "is a directory"),
        (["text.txt", "--plot", "loss.doc"], 1, "a picture's name ends in one of"),
        (["text.txt", "--plot", "no/loss.png"], 1, "there is no directory"),
        (["text.txt", "--lr", "1e38", "--epochs", "9", *SMALL[:-2]], 1, "the learning rate 1e+38 is too high"),
    ]:
        assert message in refused(capsys, "train", *arguments, code=code)


def test_train_that_runs_off_says_where_its_best_model_is(here, capsys, monkeypatch):
    step = training.Trainer._step

    def nan_in_the_end(trainer):
        step(trainer)
        if trainer.epoch > 2:
            trainer.model.params["head.bias"][0] = math.nan

    monkeypatch.setattr(training.Trainer, "_step", nan_in_the_end)
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "4"]) == 1
    *_, note, error = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Best model until then: \d\.\d{3} bits per character, saved to model\.safetensors\.", note)
    assert "training has diverged to nan" in error
    assert charmodel.load_model("model.safetensors")


def test_train_overwrites_no_text_and_none_of_its_files(here, capsys):
    (here / "link").symlink_to("text.txt")
    (here / "other.png").write_text(TEXT, encoding="utf-8")
    (here / "m.resume.safetensors").write_text(TEXT, encoding="utf-8")
    before = {name: (here / name).read_bytes() for name in os.listdir(here)}
    for arguments, message in [
        (["text.txt", "--out", "text.txt"], "the model text.txt would overwrite the text text.txt"),
        (["other.png", "link", "--out", "./text.txt"], "the model ./text.txt would overwrite the text link"),
        (["text.txt", "--out", "link"], "the model link would overwrite the text text.txt"),
        (["m.resume.safetensors", "--out", "m.safetensors"], "the training state m.resume.safetensors would overwrite"),
        (["other.png", "--plot", "other.png"], "the picture other.png would overwrite the text other.png"),
        (["text.txt", "--out", "m.png", "--plot", "m.png"], "the picture m.png would overwrite the model m.png"),
    ]:
        assert message in refused(capsys, "train", *arguments, code=2)
    assert {name: (here / name).read_bytes() for name in os.listdir(here)} == before

    assert cli.main(["train", "other.png", *SMALL, "--epochs", "1"]) == 0
    message = refused(capsys, "train", "--resume", "--plot", "other.png", code=2)
    assert f"the picture other.png would overwrite the text {here / 'other.png'}" in message
    assert (here / "other.png").read_bytes() == before["other.png"]


def test_train_says_what_a_picture_needs(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    message = refused(capsys, "train", "text.txt", "--plot", "loss.png")
    assert "needs matplotlib: pip install matplotlib" in message
    assert os.listdir(here) == ["text.txt"]


def test_sample_and_eval_refuse(here, capsys):
    charmodel.save_model("m", charmodel.CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0), {})
    (here / "other.txt").write_text("the fox§", encoding="utf-8")
    (here / "empty.txt").write_text("")
    (here / "binary").write_bytes(bytes(range(256)))
    (here / "rows.npy").write_bytes(b"\x93NUMPY")
    for arguments, code, message in [
        (["sample", "none"], 1, "none: no such file"),
        (["sample", "text.txt"], 1, "text.txt is no safetensors file"),
        (["show", "rows.npy"], 1, "It is an .npy of NumPy's: pyrnn.read_weights(path) reads such"),
        (["sample", "empty.txt"], 1, "empty.txt is no safetensors file"),
        (["sample", "."], 1, ". is a directory"),
        (["sample", "m", "--prompt", "Q"], 1, "prompt: characters the model does not know: 'Q' (U+0051) at position 0"),
        (["sample", "m", "--temperature", "-1"], 2, "--temperature"),
        (["sample", "m", "--length", "-1"], 2, "--length"),
        (["sample"], 2, "MODEL"),
        (["eval", "m"], 2, "TEXT"),
        (["eval", "m", "other.txt"], 1, "other.txt: characters the model does not know: '§' (U+00A7) at position 7"),
        (["eval", "m", "empty.txt"], 1, "empty.txt is too short: it has 0 characters, at least two are needed"),
        (["eval", "m", "binary"], 1, "binary is not UTF-8 text: byte 0x80 at position 128"),
        (["eval", "m", "none"], 1, "none: no such file"),
        (["paint"], 2, "paint"),
    ]:
        assert message in refused(capsys, *arguments, code=code)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_eval_of_a_model_of_no_use(here, capsys, options):
    model = charmodel.CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0)
    model.params["head.bias"][0] = math.nan
    charmodel.save_model("m", model, {})
    assert "m: the model's outputs are not finite" in refused(capsys, "eval", "m", "text.txt", *options)
    assert capsys.readouterr().out == ""


def test_eval_of_a_long_text_shows_how_far_it_is(here, capsys, monkeypatch):
    charmodel.save_model("m", charmodel.CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0), {})
    monkeypatch.setattr(terminal, "LINE_EVERY", 0.0)
    assert cli.main(["eval", "m", "text.txt"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == -(-(len(TEXT) - 1) // 512)
    assert re.fullmatch(rf"512 of {len(TEXT):,} characters \d+\.\dk/s", lines[1])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("limited", ["m", "m.resume.safetensors", "loss.png"])
def test_a_full_disk_is_named(here, capsys, monkeypatch, limited):
    """Every file that a training writes."""
    locked = files._locked

    def full(start, mode):
        file = locked(start, mode)
        if os.path.basename(start) == f".{limited}":
            with open("/dev/full", "wb") as device:
                os.dup2(device.fileno(), file.fileno())
        return file

    def at_the_end(trainer, _step=training.Trainer._step):
        monkeypatch.setattr(files, "_locked", full)
        monkeypatch.setattr(files, "_take_over", lambda *_: None)
        _step(trainer)

    monkeypatch.setattr(training.Trainer, "_step", at_the_end)
    arguments = ["train", "text.txt", *SMALL, "--epochs", "1", "--out", "m", "--plot", "loss.png"]
    assert refused(capsys, *arguments) == f"Error: {limited}: No space left on device"
    assert not [name for name in os.listdir(here) if name.endswith((".tmp", ".lock"))]


def test_a_full_disk_takes_nothing_of_an_earlier_training(here, capsys, monkeypatch):
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "1"]) == 0
    before = {name: (here / name).read_bytes() for name in os.listdir(here)}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

    monkeypatch.setattr(files, "replace", full)
    message = refused(capsys, "train", "text.txt", *SMALL, "--epochs", "2", "--overwrite")
    assert message == "Error: model.safetensors: No space left on device"
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert {name: (here / name).read_bytes() for name in os.listdir(here)} == before
    assert cli.main(["train", "--resume", "--epochs", "2"]) == 0


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["train", "text.txt", "--out", ""], "'--out'"),
        (["train", "text.txt", "--plot", ""], "'--plot'"),
        (["train", "text.txt", ""], "'[TEXT]...'"),
        (["sample", ""], "'MODEL'"),
        (["eval", "", "text.txt"], "'MODEL'"),
        (["eval", "text.txt", ""], "'TEXT'"),
        (["hopfield", "--out", ""], "'--out'"),
        (["hopfield", ""], "'[IMAGES]...'"),
    ],
)
def test_no_name_is_no_file_name(here, capsys, arguments, where):
    message = refused(capsys, *arguments, code=2)
    assert message == f"Error: Invalid value for {where}: '' is no file name."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--what"], "unrecognized arguments: --what"),
        (["--threads", "0"], "--threads is 0, expected 1 to 256"),
        (["--threads", "257"], "--threads is 257, expected 1 to 256"),
        (["--seconds", "nan"], "--seconds is nan, expected a finite number"),
        (["--seconds", "inf"], "--seconds is inf, expected a finite number"),
        (["perceptron"], "there is no perceptron"),
        (["lstm", "--json", "no/where.json"], "there is no directory"),
    ],
)
def test_bench_refuses(here, capsys, arguments, message):
    assert message in refused(capsys, "bench", *arguments, code=2)


def test_lines_of_progress_do_not_wait_for_a_validation(here, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "LINE_EVERY", 0.0)
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "2"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert re.fullmatch(r"epoch 0\.\d\d train \d\.\d{3} valid - bits \d+\.\dk/s", lines[0])
    assert re.fullmatch(r"epoch 2\.00 train \d\.\d{3} valid \d\.\d{3} bits \d+\.\dk/s", lines[-1])


def test_the_bar_fits_a_terminal_of_80_columns(here):
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with ended(start("train", "text.txt", *SMALL, "--epochs", "2", stderr=theirs)) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the end, on Linux
            while part := os.read(ours, 10000):
                written += part
        process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    last = [line for line in written.decode().replace("\n", "\r").split("\r") if "%|" in line][-1]
    assert re.match(r"100%\|█{8,}\| .*epoch 2\.00 train \d\.\d{3} valid \d\.\d{3} bits \d+\.\dk/s *$", last)
    assert len(last) <= 80


def test_undecodable_prompt_and_output(here):
    charmodel.save_model("m", charmodel.CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0), {})
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = start("sample", "m", "--prompt", b"\xff", env=environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("Error: prompt: ")
    assert "udcff" in err
    process = start("sample", "m", "--prompt", "漢字", "--length", "9", env=environment)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("\\u6f22\\u5b57")


def test_a_closed_pipe_is_quiet(here):
    charmodel.save_model("m", charmodel.CharModel(Vocabulary.of(TEXT), "rnn", 4, 4, rng=0), {})
    process = start("sample", "m", "--length", "100000")
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    with process.stderr as err:
        assert err.read() == ""


@pytest.mark.parametrize(("line_every", "stopped"), [(0, True), (1e9, True), (0, False)])
def test_a_training_outlives_the_reader_of_its_messages(here, line_every, stopped):
    """Be the first message that nobody reads one of progress, or that of the signal handler."""
    program = (
        "import sys; from pyrnn.app import cli, terminal; "
        f"terminal.LINE_EVERY = {line_every}; sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "train", "text.txt", *SMALL, "--epochs", "1000000" if stopped else "3"]
    reader, writer = os.pipe()
    with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writer)) as process:
        os.close(writer)
        assert b"characters to train on" in os.read(reader, 1000)
        os.close(reader)
        if stopped:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == (130 if stopped else 0)
    assert run.Resumed.read("model.safetensors").progress["done"] > 0
    assert charmodel.load_model("model.safetensors")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams(here, closed):
    python = shlex.quote(sys.executable)

    def run(*arguments):
        command = f"{python} -m pyrnn {shlex.join(arguments)} {closed}"
        return subprocess.run(command, shell=True, capture_output=True, encoding="utf-8", timeout=60)

    done = run("train", "text.txt", *SMALL, "--epochs", "1")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert charmodel.load_model("model.safetensors")
    calls = [
        (0, ["sample", "model.safetensors", "--length", "20"]),
        (0, ["eval", "model.safetensors", "text.txt"]),
        (1, ["sample", "none"]),
        (2, ["paint"]),
    ]
    for code, arguments in calls if closed.startswith("<") else calls[1:3]:
        done = run(*arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), arguments
        assert done.stdout == "" or ">&-" not in closed or closed == "2>&-"
        assert code == 0 or "2>&-" in closed or done.stderr.startswith("Error: ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["--help"], ["--version"]])
def test_output_that_cannot_be_written(here, unbuffered, arguments):
    """At once or at the end, by a command or by click."""
    others = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment = others | {"PYTHONUNBUFFERED": "1"} if unbuffered else others
    with open("/dev/full", "w") as full, start(*arguments, stdout=full, env=environment) as process:
        assert process.communicate(timeout=60)[1] == "Error: standard output: No space left on device\n"
        assert process.returncode == 1
