"""The command line: what it prints, where, with which exit code; that it is stopped and killed without harm."""

import contextlib
import json
import math
import os
import random
import re
import shlex
import signal
import struct
import subprocess
import sys
import time

import pytest

from pyrnn import charmodel, cli
from pyrnn.text import Vocabulary

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
        "import os, sys; from pyrnn import charmodel, cli, files\n"
        "def interrupted(function, when):\n"
        "    def wrapped(*arguments, **options):\n"
        "        result = function(*arguments, **options)\n"
        f"        if when(): [os.kill(os.getpid(), {int(number)}) for _ in range(2)]\n"
        "        return result\n"
        "    return wrapped\n"
        "batches = iter(range(10**6))\n"
        "charmodel.cross_entropy = interrupted(charmodel.cross_entropy, lambda: next(batches) == 11)\n"
        "os.fsync = interrupted(os.fsync, lambda: True)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["train", "text.txt", *SMALL, "--epochs", "3"]
    command = [sys.executable, "-c", program, *arguments, "--out", "my model.safetensors"]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    assert process.returncode == code, process.stderr
    assert "pyrnn train --resume --out 'my model.safetensors'" in process.stderr
    assert "Traceback" not in process.stderr
    assert charmodel.Resumed.read("my model.safetensors").progress["done"] == 12
    assert charmodel.load_model("my model.safetensors")
    assert cli.main(["train", "--resume", "--out", "my model.safetensors"]) == 0
    assert cli.main([*arguments, "--out", "whole"]) == 0
    assert (here / "whole").read_bytes() == (here / "my model.safetensors").read_bytes()
    resumed, whole = charmodel.Resumed.read("my model.safetensors"), charmodel.Resumed.read("whole")
    assert resumed.arrays.keys() == whole.arrays.keys()
    assert all(resumed.arrays[name].tobytes() == whole.arrays[name].tobytes() for name in whole.arrays)


def test_a_killed_run_leaves_whole_files(here, monkeypatch):
    """A run that writes its files after every batch, killed at a random moment."""
    program = "import sys; from pyrnn import charmodel, cli; charmodel.SAVE_EVERY = 0.0; cli.main(sys.argv[1:])"
    rng = random.Random(0)
    for k in range(3):
        arguments = ["train", "text.txt", *SMALL, "--epochs", "1000"] if k == 0 else ["train", "--resume"]
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL)
        wait_for_files(process, ["model.safetensors", "model.resume.safetensors"])
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.wait()
        assert charmodel.load_model("model.safetensors")
        assert charmodel.Resumed.read("model.safetensors").progress["done"] > 0


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
    assert charmodel.Resumed.read("model.safetensors").progress["characters"] > 2000
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
    step = charmodel.Trainer._step

    def nan_in_the_end(trainer):
        step(trainer)
        if trainer.epoch > 2:
            trainer.model.params["head.bias"][0] = math.nan

    monkeypatch.setattr(charmodel.Trainer, "_step", nan_in_the_end)
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "4"]) == 1
    *_, note, error = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Best model until then: \d\.\d{3} bits per character, saved to model\.safetensors\.", note)
    assert "training has run off to nan" in error
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
    assert 'pip install "pyrnn[plot]"' in message
    assert os.listdir(here) == ["text.txt"]


def test_sample_and_eval_refuse(here, capsys):
    charmodel.save_model("m", charmodel.CharModel(Vocabulary.of(TEXT), "lstm", 4, 8, rng=0), {})
    (here / "other.txt").write_text("the fox§", encoding="utf-8")
    (here / "empty.txt").write_text("")
    (here / "binary").write_bytes(bytes(range(256)))
    for arguments, code, message in [
        (["sample", "none"], 1, "none: no such file"),
        (["sample", "text.txt"], 1, "text.txt is no safetensors file"),
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


def test_lines_of_progress_do_not_wait_for_a_validation(here, capsys, monkeypatch):
    monkeypatch.setattr(cli, "LINE_EVERY", 0.0)
    assert cli.main(["train", "text.txt", *SMALL, "--epochs", "2"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert re.fullmatch(r"epoch 0\.\d\d train \d\.\d{3} valid - bits \d+\.\dk/s", lines[0])
    assert re.fullmatch(r"epoch 2\.00 train \d\.\d{3} valid \d\.\d{3} bits \d+\.\dk/s", lines[-1])


def test_the_bar_fits_a_terminal_of_80_columns(here):
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with start("train", "text.txt", *SMALL, "--epochs", "2", stderr=theirs) as process:
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
    program = f"import sys; from pyrnn import cli; cli.LINE_EVERY = {line_every}; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "train", "text.txt", *SMALL, "--epochs", "1000000" if stopped else "3"]
    reader, writer = os.pipe()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writer) as process:
        os.close(writer)
        assert b"characters to train on" in os.read(reader, 1000)
        os.close(reader)
        if stopped:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == (130 if stopped else 0)
    assert charmodel.Resumed.read("model.safetensors").progress["done"] > 0
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
    for code, arguments in [
        (0, ["sample", "model.safetensors", "--length", "20"]),
        (0, ["eval", "model.safetensors", "text.txt"]),
        (0, ["info"]),
        (1, ["sample", "none"]),
        (2, ["paint"]),
    ]:
        done = run(*arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), arguments
        assert done.stdout == "" or ">&-" not in closed or closed == "2>&-"
        assert code == 0 or "2>&-" in closed or done.stderr.startswith("Error: ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written(here):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full, start("info", stdout=full, env=environment) as process:
        assert process.communicate(timeout=60)[1] == "Error: [Errno 28] No space left on device\n"
        assert process.returncode == 1
