"""The systems of pyrnn/examples: each runs on a tiny cut and tells its figures; together they keep the guide's rules.

The figures themselves are reached by the commands in their docstrings, which take minutes.
"""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import pyrnn.examples
from pyrnn.examples import PARTS

FOLDER = Path(pyrnn.examples.__file__).parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem[:2] != "__")


def run(name, *arguments, code=0):
    """The output of one example's command line."""
    main = importlib.import_module(f"pyrnn.examples.{name}").main
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def rows_of(output):
    """The figures of a table of the three parts, by the names of its rows."""
    assert re.search(r" +training +validation +test$", output, re.M)
    figures = re.findall(r"^(\S.*?) {2,}(\S+) {2,}(\S+) {2,}(\S+)$", output, re.M)
    return {
        name: [np.nan if x == "-" else float(x.rstrip("%")) for x in row] for name, *row in figures if row != [*PARTS]
    }


# All of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_system_is_a_short_lesson(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert text.count("\n") < 200
    module = importlib.import_module(f"pyrnn.examples.{name}")
    commands = re.findall(rf"python -m pyrnn.examples.{name}\b(.*)", module.__doc__)
    commands += re.findall(rf"`{name}\b([^`]*)`", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert commands
    known = {option for parameter in module.main.params for option in parameter.opts}
    assert set(re.findall(r"--[\w-]+", " ".join(commands))) <= known
    private = re.findall(r"^ *(?:from|import) (?:\.\.|pyrnn\._|pyrnn import _).*", text, re.MULTILINE)
    assert not private, "an example uses the public API"
    assert module.main.help


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_has_a_row_for_it(name):
    guide = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^\|.*`{name}\b[^|]*` *\|[^|]*\|$", guide, re.MULTILINE), f"no row of the table runs {name}"


def test_the_list_has_them_all(tmp_path):
    """Each with the command in its docstring, which runs as it is printed, and the docstring's first line."""
    lines = run("__main__").splitlines()
    commands = [line for line in lines if line.startswith("python -m ")]
    assert [re.match(r"python -m pyrnn\.examples\.(\w+)( --|$)", command)[1] for command in commands] == NAMES
    for name, command in zip(NAMES, commands, strict=True):
        words = importlib.import_module(f"pyrnn.examples.{name}").__doc__
        assert f"\n    {command}\n" in words
        assert lines[lines.index(command) + 1].strip() == words.splitlines()[0]
    command = commands[NAMES.index("hello")].replace("python", sys.executable, 1).split()
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60, check=True)
    assert listed.stdout == run("__main__", "hello") == run("hello")


def test_the_three_parts_are_all_rows_and_the_validation_part_is_that_of_held_out():
    for n, share in [(6, 0.1), (10, 0.2), (1803, 0.1), (222, 0.2)]:
        split = pyrnn.examples.parts(n, share, 3)
        assert [*split] == [*PARTS]
        assert np.array_equal(np.sort(np.concatenate([*split.values()])), np.arange(n))
        assert all(np.array_equal(rows, np.sort(rows)) for rows in split.values())
        assert len(split["validation"]) == len(split["test"]) == round(share * n)
        np.testing.assert_array_equal(split["validation"], pyrnn.data.held_out(n, share, 3)[1])
        np.testing.assert_array_equal(split["test"], pyrnn.examples.parts(n, share, 3)["test"])
    others = (pyrnn.examples.parts(1000, 0.1, seed)["test"] for seed in range(2))
    assert len(np.intersect1d(*others)) < 40  # of 100, by chance 10


def test_the_table_of_the_three_parts(capsys):
    pyrnn.examples.table("right", {"it": [1, 0.25, np.nan], "a longer name": np.array([0.5, 0.123456, 0])})
    output = capsys.readouterr().out
    assert {len(line) for line in output.splitlines()} == {70}
    np.testing.assert_equal(rows_of(output), {"it": [100, 25, np.nan], "a longer name": [50, 12.3, 0]})


def test_one_is_run_by_its_name():
    assert "--steps" in run("__main__", "hello", "--help")
    assert run("__main__", "hello", "--steps", "1") == run("hello", "--steps", "1") != run("hello")
    assert "No such command 'helo'" in run("__main__", "helo", code=2)
    assert "No such command '__main__'" in run("__main__", "__main__", code=2)
    assert "hello" in run("__main__", "--help")


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_is_told(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYRNN_DATA", str(tmp_path))
    main = importlib.import_module(f"pyrnn.examples.{name}").main
    if any(option.name == "data" for option in main.params):
        for arguments in [(), ("--data", "no/such/place")]:
            output = " ".join(run(name, *arguments, code=2).split())
            assert "Expected: " in output
            assert re.search(r"(found at|`pyrnn data \w+` fetches it from) http", output)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_that_cannot_be_written_is_told_at_once(name, tmp_path):
    pytest.importorskip("matplotlib")
    main = importlib.import_module(f"pyrnn.examples.{name}").main
    if any(option.name == "plot" for option in main.params):
        data = ["--data", tmp_path] if any(option.name == "data" for option in main.params) else []
        assert "--plot" in run(name, *data, "--plot", tmp_path / "picture.txt", code=2)


def series_files(folder, **changed):
    for file, step in [
        ("monthly-sunspots.csv", 1.5),
        ("daily-min-temperatures.csv", 0.5),
        ("airline-passengers.csv", 2),
    ]:
        lines = ["date,value", *(f'"19{k:02}-01",{20 + step * k}' for k in range(110))]
        (folder / file).write_text(changed.get(file[:5], lambda text: text)("\n".join(lines)), encoding="utf-8")


def line_three(new):
    """The second value of the sunspots' file is another."""
    return lambda folder: series_files(folder, month=lambda text: text.replace('"1901-01",21.5', new))


FASTA = "".join(f">g{k} x\n{'ACGT' * 5}\n" for k in range(12))
INTRONS = "".join(f"{k}\tg{k}\t3\t9\n" for k in range(12))


def gene_data(fasta=FASTA, introns=INTRONS):
    def write(folder):
        (folder / "genes_with_introns.fsa").write_text(fasta)
        (folder / "introns.txt").write_text(introns)

    return write


def files(**contents):
    """Of names without their endings; bytes as they are."""

    def write(folder):
        for name, content in contents.items():
            name = name.replace("_", ".")
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


SPANNED = "expected id, gene, first base, last base"
FLAWS = [  # example, what is written, the file it is told to read, what it says
    ("forecasting", line_three('"1901-01",'), "",
     "monthly-sunspots.csv, line 3: '\"1901-01\",', expected a date and a"),
    ("forecasting", line_three('"1901-01",nan'), "", "monthly-sunspots.csv, line 3: "),
    ("forecasting", line_three('"1901-01",-3'), "", "a number from 0 on"),
    ("forecasting", line_three('"1901-01",?0.2'), "", "monthly-sunspots.csv, line 3: "),
    ("forecasting", line_three('"1901-01",2,3'), "", "monthly-sunspots.csv, line 3: "),
    ("forecasting", line_three("1901-01;3"), "", "monthly-sunspots.csv, line 3: "),
    ("forecasting", lambda f: series_files(f, airli=lambda t: t + "\n\nPassengers: in thousands"), "",
     "airline-passengers.csv, line 113: 'Passengers: in thousands'"),
    ("forecasting", lambda f: series_files(f, airli=lambda t: t.replace(",20\n", ",0\n")), "",
     "passengers.csv, line 2: "),
    ("forecasting", lambda f: series_files(f, daily=lambda t: t[:400]), "", "temperatures.csv: 2"),
    ("forecasting", files(), "", "monthly-sunspots.csv: no such file"),
    ("introns", gene_data(introns=INTRONS + "\n3 g3 4\n"), "", f"introns.txt, line 14: '3 g3 4', {SPANNED}"),
    ("introns", gene_data(introns=INTRONS + "3 g3 4 x\n"), "", f"introns.txt, line 13: '3 g3 4 x', {SPANNED}"),
    ("introns", gene_data(introns=INTRONS + "3 G3 4 9\n"), "", "line 13: the gene G3 is not in genes_with_introns.fsa"),
    ("introns", gene_data(introns=INTRONS + "3 g3 4 21\n"), "", "line 13: 4 to 21, expected 1 to 20, bases of g3"),
    ("introns", gene_data(FASTA + ">n\nACNNT\n"), "",
     "genes_with_introns.fsa, n: characters the model does not know: 'N'"),
    ("introns", gene_data(FASTA + ">g1\nA\n"), "", "genes_with_introns.fsa, line 25: the name 'g1' came before"),
    ("introns", gene_data(""), "", "genes_with_introns.fsa: 0 genes are too few, expected at least 10"),
    ("introns", gene_data(introns=""), "", "introns.txt: 0 introns are too few"),
    ("music", files(), "", "0 tunes that parse in .abc files are too few"),
    ("music", files(a_abc="X:1\nM:none\nK:C\nabc|\n"), "", "0 tunes that parse in .abc files are too few"),
    ("name_language", files(), "", "no file of names such as Czech.txt"),
    ("name_language", files(Czech_txt="\n \n"), "", "0 names are too few"),
    ("name_language", files(Czech_txt="a\nÁb\n".encode("latin-1")), "",
     "Czech.txt is not UTF-8 text: byte 0xc1 at position 2, line 2"),
    ("name_writer", files(), "", "no file of names such as Czech.txt"),
    ("sentiment", files(), "", "rt-polarity.neg"),
    ("sentiment", lambda folder: [(folder / f"rt-polarity.{end}").write_text("\n\n") for end in ("neg", "pos")], "",
     "rt-polarity.neg: 0 sentences are too few"),
    ("translation", files(p_tsv="Go.\tVa !\n\nRun!\n"), "p.tsv",
     "p.tsv, line 3: 'Run!', expected an English phrase, a tab"),
    ("translation", files(p_tsv="Go.\tVa !\n"), "p.tsv", "p.tsv: 1 French phrases are too few"),
    ("translation", files(), "", "is a directory, expected a text file"),
    ("capitals", files(a_txt="Short. Text.\n"), "a.txt",
     "a.txt: 0 characters in the lines before the last tenth are too few"),
    ("capitals", files(a_txt="No line end. " * 500), "a.txt", "a.txt: 0 characters in the lines"),
    ("torch_tagger", files(a_txt="A line.\n\n"), "a.txt", "a.txt: 1 lines are too few, expected at least 20"),
    ("word_lm", files(a_txt="a few words"), "a.txt", "a.txt: 3 words are too few, expected at least 1000"),
    ("char_lm", files(a_txt="abc " * 8), "a.txt", "a.txt is too short: 29 characters to train on"),
    ("char_transformer", files(a_txt="abc " * 300), "a.txt", "a.txt: 1200 characters are too few, expected at least"),
    ("slots", files(train_jsonl="{}\n"), "", "train.jsonl, line 1: '{}', expected an object with intent and parts"),
    ("slots", files(train_jsonl='{"intent": "a", "parts": [[1, null]]}'), "", "train.jsonl, line 1: "),
    ("slots", files(train_jsonl='{"intent": "a", "parts": [["Go", null]]}\n' * 3), "",
     "train.jsonl: 3 requests are too few"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "path", "message"), FLAWS)
def test_a_flaw_of_the_data_is_one_line_with_its_place(name, write, path, message, tmp_path):
    write(tmp_path)
    output = run(name, "--data", tmp_path / path, code=1)
    assert output.startswith("Error: ")
    assert message in output
    assert output.count("\n") == 1


def test_blank_lines_and_common_time_are_no_flaws(tmp_path):
    from pyrnn.examples import forecasting, music, sentiment, translation

    series_files(tmp_path, month=lambda text: text.replace("\n", "\r\n\r\n") + "\n\n")
    values, dates = forecasting.read(tmp_path / "monthly-sunspots.csv", forecasting.KINDS["sunspots"])
    np.testing.assert_array_equal(values, 20 + 1.5 * np.arange(110))
    assert dates is None  # the last have five digits
    series_files(tmp_path, month=lambda text: text.partition('"19100-01"')[0].replace(",", ", "))
    values, dates = forecasting.read(tmp_path / "monthly-sunspots.csv", forecasting.KINDS["sunspots"])
    np.testing.assert_array_equal(dates, np.array([f"19{k:02}-01" for k in range(100)], "M8[M]"))
    (tmp_path / "a.abc").write_text("X:1\nM:C\nK:D\nabcd|\nX:2\nM:C|\nK:D\nabcd|\nX:3\nM:2/4\nK:D\nabcd|\n")
    assert music.read(tmp_path) == [
        f"[M:{m}][L:{u}][K:D]abcd|" for m, u in [("4/4", "1/8"), ("2/2", "1/8"), ("2/4", "1/16")]
    ]
    for end in ("neg", "pos"):
        (tmp_path / f"rt-polarity.{end}").write_text("a b\n\n" * 12)
    assert [len(words) for words in sentiment.read(tmp_path)[0]] == [2] * 24
    (tmp_path / "p.tsv").write_text("\n".join(f"Go{k}.\tVa{k} !\n" for k in range(12)))
    assert [len(part) for part in translation.read(tmp_path / "p.tsv", 0).values()] == [10, 1, 1]


def test_a_language_that_is_only_held_out_is_counted(tmp_path):
    names = {"Even": ["anna", "otto", "abba", "elle", "Anna"], **{f"L{k}": [f"name{k}"] for k in range(9)}}
    for language, some in names.items():
        (tmp_path / f"{language}.txt").write_text("\n".join(some))
    assert "14 names in 10 languages, 1 of them in the test part" in run(
        "name_language", "--data", tmp_path, "--networks", 1, "--epochs", 1
    )


def test_nothing_tells_to_install_somebody_elses_package():
    root = FOLDER.parent.parent
    named = re.compile("pip install [^\n&;]*[\"' ]pyrnn\\b(?!/|-cpu)")
    files = [file for places in ("*.md", "docs/*", "bench/*", "pyrnn/examples/*.md") for file in root.glob(places)]
    for file in [*files, *FOLDER.parent.rglob("*.py")]:
        if file.is_file() and file.suffix in (".md", ".py"):
            assert not named.search(file.read_text(encoding="utf-8")), file


def test_options_are_clicks():
    assert NAMES
    for name in NAMES:
        assert isinstance(importlib.import_module(f"pyrnn.examples.{name}").main, click.Command)


# hello -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_hello_is_learned_exactly_and_drawn_with_shapes(seed):
    from pyrnn.examples import hello

    model = hello.Letters(3, np.random.default_rng(seed))
    assert hello.learn(model, 200) < 0.02
    assert hello.write(model, "h", 5) == "hello"
    drawing = hello.drawing(model)
    for part in ["logits (4, 4)", "h (4, 3)", "x (4, 4)", "W_xh (3, 4)", "W_hh (3, 3)", "W_hy (4, 3)"]:
        assert part in drawing


def test_hello_command():
    output = run("hello", "--seed", 1)
    assert "after: hello" in output
    assert "likeliest letters                  'e'         'l'         'l'         'o'" in output


# gradient_flow ---------------------------------------------------------------------------------------------------


def test_gradient_flow_vanishes_explodes_and_stays(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("gradient_flow", "--hidden", 12, "--steps", 60, "--plot", tmp_path / "flow.png")
    norms = {line[:34].strip(): float(line[34:62].split()[1]) for line in output.splitlines()[1:]}
    assert norms["RNN, W 0.9 x orthogonal"] < 1e-3
    assert norms["RNN, W 2 x orthogonal"] > 10
    assert max(norms["LSTM, forget gate's bias 0"], norms["GRU, update gate's bias 0"]) < 1e-8
    assert min(norms["LSTM, forget gate's bias log u"], norms["GRU, update gate's bias log u"]) > 1e-4
    assert (tmp_path / "flow.png").stat().st_size > 10_000


# forecasting -----------------------------------------------------------------------------------------------------


def some_series(rng):
    """A wave with noise, a short one, and one that grows by some percent a year."""
    t = np.arange(600)
    return {
        "sunspots": 50 + 40 * np.sin(2 * np.pi * t / 132) + rng.normal(0, 2, 600),
        "temperatures": 10 + rng.normal(0, 2, 600),
        "passengers": np.exp(t[:100] / 100) * (100 + 10 * np.sin(2 * np.pi * t[:100] / 12)),
    }


def test_forecasts_see_nothing_after_their_origin(rng):
    pytest.importorskip("sklearn")
    from pyrnn.examples import forecasting as f

    for name, values in some_series(rng).items():
        first = len(values) - len(values) // 5
        changed = values.copy()
        changed[first + 3 :] = 2 * changed[first + 3 :] + 5
        one, other = (f.follow(series, first, 2, 0) for series in (values, changed))
        assert list(one) == list(range(first - 1, len(values) - f.AHEAD))
        for origin in range(first - 1, first + 3):
            np.testing.assert_array_equal(one[origin], other[origin])
        assert not np.array_equal(one[first + 3], other[first + 3])
        season = f.KINDS[name].season
        for a, b in zip(*(f.simpler(series, season, first).values() for series in (values, changed)), strict=True):
            np.testing.assert_array_equal(a[: first + 3], b[: first + 3])


def test_forecasting_command(rng, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    from pyrnn.examples import forecasting as f

    for name, values in some_series(rng).items():
        rows = "\n".join(f'"{k}",{value}' for k, value in enumerate(values))
        (tmp_path / f.KINDS[name].file).write_text('"Month","Value"\n' + rows)
    output = run("forecasting", "--data", tmp_path, "--epochs", 20, "--plot", tmp_path / "f.png")
    lines = [line.split() for line in output.splitlines() if line.split()[:1] in ([name] for name in f.KINDS)]
    assert len(lines) == 3
    persistence, seasonal, _, ours = np.array([line[1:5] for line in lines], float).T
    assert np.all(ours < persistence)
    assert np.all(ours[1:] < seasonal[1:])  # the wave repeats exactly
    assert all(0 < int(line[5].rstrip("%")) <= 100 for line in lines)
    assert (tmp_path / "f.png").stat().st_size > 10_000


# torch tagger ----------------------------------------------------------------------------------------------------


def test_torch_tagger_command(rng, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("torch")
    words = np.array(["Anna", "a", "who", "Bob", "or", "sees"])
    lines = [" ".join(rng.choice(words, n)) for n in rng.integers(1, 9, 60)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    options = ("--updates", 45, "--hidden", 8, "--batch", 12, "--plot", tmp_path / "speed.png")
    output = run("torch_tagger", "--data", tmp_path / "a.txt", *options)
    before, after = (re.search(rf"^{way} +(.*)%$", output, re.M)[1].split() for way in ("torch", "accelerated"))
    np.testing.assert_allclose(np.array(before[:2], float), np.array(after[:2], float), rtol=1e-3)
    assert before[3] == after[3]
    assert float(re.search(r"losses at most (\S+) apart", output)[1]) < 1e-4
    assert float(before[1]) < 0.7 * float(before[0])
    assert (tmp_path / "speed.png").stat().st_size > 10_000


# ball ------------------------------------------------------------------------------------------------------------


def test_balls_fall_bounce_and_are_seen_until_the_curtain(rng):
    from pyrnn.examples import ball

    track = ball.throw(200, rng)
    assert track.min() >= 0
    assert track.max() <= 1
    change = np.diff(track, n=2, axis=0) / ball.STEP**2  # in free flight the acceleration
    np.testing.assert_allclose(np.median(change, axis=(0, 1)), [0, -ball.GRAVITY], atol=1e-9)
    assert 0.01 < np.mean(np.abs(change[..., 0]) > 1e-6) < 0.1  # walls
    x = ball.look(track, rng)
    assert not x[ball.SEEN :].any()
    off = x[: ball.SEEN, :, :2] - track[: ball.SEEN]
    assert np.std(off) == pytest.approx(ball.NOISE, rel=0.05)
    line = np.arange(ball.SEEN + ball.AHEAD)[:, None, None] * np.array([0.1, -0.2]) + np.zeros((1, 3, 1)) + 0.3
    seen = np.concatenate([line, np.ones((*line.shape[:2], 1))], axis=2)
    np.testing.assert_allclose(ball.straight(seen), line[ball.SEEN :], atol=1e-9)


def test_ball_command(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("ball", "--hidden", 24, "--steps", 60, "--batch", 32, "--plot", tmp_path / "t.png")
    off = {way: float(found) for way, found in re.findall(r"(\w+)(?: line)? +([\d.]+) box heights", output)}
    share = float(re.search(r"error is ([\d.]+) of the straight line's", output)[1])
    assert 0 < share < 1
    assert share == pytest.approx(off["network"] / off["straight"], abs=2e-3)
    assert 0.1 < off["reflected"] < off["straight"] < 0.6
    assert (tmp_path / "t.png").stat().st_size > 10_000


# name_language ---------------------------------------------------------------------------------------------------

NAMES_OF = {"Even": ["anna", "otto", "abba", "elle", "Anna"], "Odd": ["kim", "tom", "Zoë", "kim"]}


def name_files(folder, times=1):
    for language, names in NAMES_OF.items():
        lines = [f"{name}{k * 'n'}" for k in range(times) for name in names]
        (folder / f"{language}.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def test_a_name_comes_once_in_a_language_and_may_come_in_two(tmp_path):
    from pyrnn.examples import name_language

    (name_files(tmp_path) / "Other.txt").write_text("kim\r\n", encoding="utf-8")
    pairs = name_language.read(tmp_path)
    assert len(pairs) == 5 + 3 + 1
    assert {("kim", "Odd"), ("kim", "Other"), ("anna", "Even"), ("Anna", "Even"), ("Zoë", "Odd")} <= set(pairs)
    with pytest.raises(ValueError, match="no file of names"):
        name_language.read(tmp_path / "..." / "none")


def test_the_classifier_learns_names_and_reads_new_ones(tmp_path):
    from pyrnn.examples import name_language

    pairs = name_language.read(name_files(tmp_path))
    rng = np.random.default_rng(0)
    networks = [name_language.train(pairs, 20, rng, batch=4) for _ in range(2)]
    assert name_language.vote(networks, [name for name, _ in pairs]).tolist() == [language for _, language in pairs]
    assert name_language.vote(networks, ["漢字"])[0] in NAMES_OF  # characters it does not know
    first, second = (network(*network.vocabulary.batch(["anna", "tom"])) for network in networks)
    assert not np.array_equal(first, second)
    one = networks[0](*networks[0].vocabulary.batch(["anna"]))  # whatever it is padded with
    np.testing.assert_array_equal(first[0], one[0])


def test_the_mean_of_log_probabilities_decides():
    from types import SimpleNamespace

    from pyrnn.examples import name_language

    def says(*shares):
        words = SimpleNamespace(batch=lambda names: (names,))
        return type("Said", (), {"vocabulary": words, "languages": ["a", "b"],
                                 "__call__": lambda self, names: np.log([shares] * len(names))})()  # fmt: skip

    networks = [says(0.6, 0.4), says(0.6, 0.4), says(0.1, 0.9)]
    assert name_language.vote(networks, ["x", "y"]).tolist() == ["b", "b"]
    assert name_language.vote(networks[:2], ["x"]).tolist() == ["a"]


def test_the_gradients_of_the_name_network(rng):
    from pyrnn.examples import name_language

    network = name_language.Network([("abc", "x"), ("de", "y"), ("a", "z")], 6, rng)
    network.drop_in.p = network.drop_out.p = 0.0
    assert_gradients(network, rng.integers(0, 5, (7, 4)), np.array([7, 3, 1, 5]), rng=rng)


def assert_gradients(network, *inputs, rng):
    """A network's pullback along a random direction of its float32 parameters, by finite differences."""
    params, grads = network.buffers[np.dtype("float32")]
    logits, pullback = network.vjp(*inputs)
    np.testing.assert_allclose(logits, network(*inputs), atol=1e-6)
    dlogits = rng.standard_normal(logits.shape).astype("float32")
    pullback(dlogits)
    start, eps = params.copy(), 1e-2
    direction = grads / np.linalg.norm(grads)  # where the slope is largest against float32's noise
    ends = []
    for sign in (1, -1):
        params[:] = start + sign * eps * direction
        ends.append(float(np.sum(network(*inputs).astype(float) * dlogits)))
    assert (ends[0] - ends[1]) / (2 * eps) == pytest.approx(np.linalg.norm(grads), rel=0.01)


def test_name_language_command(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("name_language", "--data", name_files(tmp_path, 4), "--networks", 1, "--epochs", 10,
                 "--plot", tmp_path / "c.png")  # fmt: skip
    assert "names in 2 languages" in output
    assert [*rows_of(output)] == ["the networks", "a network alone", "the most frequent language"]
    assert rows_of(output)["the networks"] == rows_of(output)["a network alone"]  # there is one
    assert (tmp_path / "c.png").stat().st_size > 10_000


# sentiment -------------------------------------------------------------------------------------------------------


def sentence_files(folder, count, rng):
    """Sentences of which one word says all; the others are the same on both sides. Not UTF-8."""
    for name, word in [("rt-polarity.neg", "dull"), ("rt-polarity.pos", "fine")]:
        others = rng.choice(["a", "film", "so", "café", "it"], (count, 4))
        lines = [" ".join(rng.permutation([word, *row])) for row in others]
        (folder / name).write_bytes("\n".join([*lines, ""]).encode("latin-1"))
    return folder


def test_sentiment_is_learned(tmp_path, rng):
    from pyrnn.examples import sentiment

    sentences, praise = sentiment.read(sentence_files(tmp_path, 60, rng))
    assert len(sentences) == len(praise) == 120
    assert all(("fine" in words) == bool(label) for words, label in zip(sentences, praise, strict=True))
    assert sum("café" in words for words in sentences) > 0
    network = sentiment.train(sentences, praise, 12, np.random.default_rng(0), batch=10)
    new = network.vocabulary.batch([["so", "fine"], ["dull"], ["never", "seen", "fine", "it"]])
    assert (network(*new) > 0).tolist() == [True, False, True]


def test_the_gradients_of_the_sentiment_network(rng):
    from pyrnn import text
    from pyrnn.examples import sentiment

    network = sentiment.Network(text.Words("abcde"), 6, rng)
    network.drop_in.p = network.drop_out.p = network.hide = 0.0
    assert_gradients(network, *network.vocabulary.batch(["abcd", "e", "bd"]), rng=rng)


def test_sentiment_command(tmp_path, rng):
    output = run("sentiment", "--data", sentence_files(tmp_path, 60, rng), "--networks", 1, "--epochs", 1)
    assert "120 sentences, 12 of them in the test part" in output
    rows = rows_of(output)
    assert [*rows] == ["the networks", "a network alone", "naive Bayes", "the networks and naive Bayes"]
    assert min(rows["naive Bayes"]) == 100  # a word says it


# translation -----------------------------------------------------------------------------------------------------


def some_phrases():
    verbs = {"walk": "marche", "eat": "mange", "sing": "chante", "talk": "parle", "dance": "danse", "fall": "tombe"}
    people = {"I": "Je", "You": "Tu", "We all": "On"}
    lines = [f"{person} {verb}.\t{people[person]} {verbs[verb]}.\tCC-BY" for person in people for verb in verbs]
    return "\n".join([*lines, "I walk.\tMoi, je marche\u202f!", "Go!\tMarche\u202f!"]) + "\n"


def test_phrases_are_held_out_with_all_their_translations(tmp_path):
    from pyrnn.examples import translation

    (tmp_path / "p.tsv").write_text(some_phrases() + "Walk!\tMarche\u202f!\n", encoding="utf-8")
    split = translation.read(tmp_path / "p.tsv", seed=0)
    assert [len(part) for part in split.values()] == [16, 2, 2]
    pairs = [(french, english) for part in split.values() for french, all_of in part.items() for english in all_of]
    assert len(pairs) == 21
    assert len({french for french, _ in pairs}) == 20
    everything = set(pairs)
    assert {("Marche !", "Go!"), ("Marche !", "Walk!"), ("Moi, je marche !", "I walk.")} < everything


def test_translations_are_learned_by_heart(rng):
    from pyrnn.examples import translation

    pairs = [(rng.integers(0, 5, 3 + n), np.array([0, 2 + n, 3 + n, 1])) for n in range(4)]
    model = pyrnn.EncoderDecoder(5, 8, 8, 32, rng=rng)
    translation.learn(model, pairs, 150, rng)
    for width in (1, 3):
        written = translation.translate(model, [source for source, _ in pairs], width)
        assert [row.tolist() for row in written] == [[2 + n, 3 + n] for n in range(4)]


def test_translation_command(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "p.tsv").write_text(some_phrases(), encoding="utf-8")
    arguments = ("--hidden", 16, "--epochs", 60, "--plot", tmp_path / "a.png")
    output = run("translation", "--data", tmp_path / "p.tsv", *arguments)
    rows = rows_of(output)
    assert [*rows] == [f"{name}, {way}" for name in ("without attention", "with attention")
                       for way in ("greedy", "a beam of 5", "new English")]  # fmt: skip
    assert np.isnan(rows["with attention, new English"][0])
    assert all(0 <= figure <= 100 for way, row in rows.items() for figure in row if "new" not in way)
    assert (tmp_path / "a.png").stat().st_size > 1000


# long_memory -----------------------------------------------------------------------------------------------------


def test_long_memory_is_learned_and_the_error_falls():
    from pyrnn.examples import long_memory

    task, rng = long_memory.ADDING, np.random.default_rng(0)
    model = long_memory.network("GRU", task, 10, 32, rng)
    errors = long_memory.learn(model, task, 10, 800, rng)
    assert np.mean(errors[:25]) > 0.05
    assert np.mean(errors[-100:]) < task.solved / 2
    assert len(errors) < 800
    x, sums = task.draw(10, 500, np.random.default_rng(1))
    assert task.loss(model.head(model.rnn(x)[0][-1:]), sums)[0] < task.solved


def test_long_memory_command(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("long_memory", "--hidden", 4, "--updates", 2, "--plot", tmp_path / "curves.png")
    assert len(re.findall(r"(?:RNN|LSTM|GRU) +\d+\.\d{4} +\d\.\d{4} +[28]\n", output)) == 12
    assert "solved" not in output
    assert (tmp_path / "curves.png").stat().st_size > 10_000


# music -----------------------------------------------------------------------------------------------------------

JIG = (
    "[M:6/8][L:1/8][K:D]f/2g/2|" + "afd ecA|" * 3 + "(3def g2 a2:|[K:G]d|" + "g3 -g2 [dg]|" * 4 + "A/d/2 d3/2A3/2 d2||"
)


def test_music_bars():
    from pyrnn.examples import music

    found = music.bars(JIG)
    assert [str(length) for length, _, _ in found] == ["1/8", *["3/4"] * 4, "1/8", *["3/4"] * 5]
    assert {str(metre) for _, metre, _ in found} == {"3/4"}
    assert [edge for _, _, edge in found] == [True, False, False, False, True, True, *[False] * 4, True]
    assert music.parses(JIG)
    for wrong in [
        JIG.replace("ecA", "ec", 1),  # a short bar inside
        JIG.replace("f/2g/2", "f/2g/2" * 7),  # a long one at the start
        JIG.replace("(3", "("),
        JIG.replace("[dg]", "[dg"),
        JIG.replace("[L:1/8]", ""),
        JIG.replace("[M:6/8]", "[M:4/4]"),
        JIG[:60],  # too few
        JIG.replace("2|", "0/0|"),
        "",
    ]:
        assert not music.parses(wrong), wrong


def test_music_reads_melodies_and_writes_them_again(tmp_path):
    from pyrnn.examples import music

    tune = 'X: 7\nT:A tune\n% a comment\nS:EF\nM:4/4\nK:G\nM:6/8\nP:A\n"G"g2g B^AB|\\\n"D7"d2d G3:|\nK:D\na3 | b3||\n\n'
    (tmp_path / "a.abc").write_text(tune * 2)
    assert music.read(tmp_path) == ["[M:6/8][L:1/8][K:G]g2g B^AB|d2d G3:|[K:D]a3|b3||"]
    assert music.abc(JIG, 3).startswith("X:3\nM:6/8\nL:1/8\nK:D\nf/2g/2|afd ecA|afd ecA|afd ecA|\n(3def g2 a2:|[K:G]d|")
    (tmp_path / "b.abc").write_text(music.abc(JIG, 3))
    assert music.read(tmp_path)[1] == JIG


def test_music_command(tmp_path):
    from pyrnn.examples import music

    rng = np.random.default_rng(0)
    bars = ["d2e fed|", "g3 f3|", "agf edc|", "B2A G3|"]
    tunes = ["[M:6/8][L:1/8][K:D]" + "".join(rng.choice(bars, 9)) + "d3||" for _ in range(40)]
    wrong = tunes[0].replace("d3||", "d7||")
    (tmp_path / "some.abc").write_text("\n\n".join(music.abc(tune, n) for n, tune in enumerate([*tunes, wrong])))
    assert sorted(music.read(tmp_path)) == sorted([*tunes, wrong])
    output = run("music", "--data", tmp_path, "--hidden", 24, "--epochs", 4, "--out", tmp_path / "new.abc")
    bits = [float(number) for number in re.findall(r"(\d\.\d{3}) bits per character, 5-gram (\d\.\d{3})", output)[0]]
    assert 0 < bits[1] < bits[0] < 6  # so short a training loses
    assert "in the data 40 of 41;" in output
    assert (tmp_path / "new.abc").exists()


# introns ---------------------------------------------------------------------------------------------------------


def gene_files(folder, count, rng):
    """Genes of random bases with one intron of T and A between GT and AG; the last is a copy of the first."""
    records, lines = [], []
    for n in range(count):
        first, length = int(rng.integers(5, 40)), int(rng.integers(20, 60))
        outside = ["".join(rng.choice(list("ACGT"), k)) for k in (first, 80)]
        bases = outside[0] + "GT" + "".join(rng.choice(list("TTTA"), length - 4)) + "AG" + outside[1]
        if n == count - 1:
            bases, first, length = records[0][1], records[0][2], records[0][3]
        records.append((f"Y{n}", bases, first, length))
        lines.append(f"{n}\tY{n}\t{first + 1}\t{first + length}\n")
    (folder / "introns.txt").write_text("".join(lines))
    (folder / "genes_with_introns.fsa").write_text(
        "".join(f">{name} GeneID:1\n{bases[:70]}\n{bases[70:]}\n" for name, bases, _, _ in records)
    )
    return folder


def test_genes_are_read_with_their_introns(tmp_path, rng):
    from pyrnn import data
    from pyrnn.examples import introns

    genes = introns.read(gene_files(tmp_path, 12, rng))
    assert [gene.name for gene in genes] == [f"Y{n}" for n in range(12)]
    for gene in genes:
        ((first, end),) = gene.introns
        assert gene.bases[first : first + 2] == "GT"
        assert gene.bases[end - 2 : end] == "AG"
        assert np.flatnonzero(gene.inside).tolist() == list(range(first, end))
    groups = data.families([gene.bases for gene in genes], word=20, common=50)
    assert groups == [[0, 11], *([n] for n in range(1, 11))]


def test_introns_are_learned(tmp_path, rng):
    from pyrnn import metrics
    from pyrnn.examples import introns

    genes = introns.read(gene_files(tmp_path, 40, rng))
    network = introns.train(genes[:30], 6, rng)
    said = [introns.chances(network, gene) for gene in genes[30:]]
    assert metrics.f1(np.concatenate(said) > 0.5, np.concatenate([gene.inside for gene in genes[30:]])) > 0.8
    figures = introns.k_mers(genes[:30], [genes[:30], genes[30:]], 3, 21)
    assert len(figures) == 2
    assert all(0.6 < figure < 1 for figure in figures)


def test_introns_command(tmp_path, rng):
    pytest.importorskip("matplotlib")
    output = run("introns", "--data", gene_files(tmp_path, 20, rng), "--epochs", 1,
                 "--plot", tmp_path / "i.png")  # fmt: skip
    assert "20 genes, 20 introns, 20 of them GT...AG, 0 GC...AG" in output
    assert "genes: training 12, validation 4, test 4" in output
    network, k_mers, _ = rows_of(output)
    assert network == "the network"
    assert re.fullmatch(r"best k-mers, k = \d, window \d+", k_mers)
    assert (tmp_path / "i.png").stat().st_size > 10_000


# capitals --------------------------------------------------------------------------------------------------------

VERSE = "ROMEO:\nO me! Am I, Anna, 'tis? I'll go--\nand so, she'd go.\n\n"


def test_stripping_and_restoring_are_inverse():
    from pyrnn.examples import capitals

    characters, labels = capitals.strip(VERSE)
    assert characters == "romeo\no me am i anna tis ill go\nand so shed go\n\n"
    assert labels[:6] == ["^", "^", "^", "^", "^:", ""]
    assert labels[characters.index(" tis")] == "'"
    assert capitals.restore(characters, labels) == VERSE


def test_f1_counts_marks_in_their_places():
    from pyrnn.examples import capitals

    true = ["^", "", ",", "^.", ""]
    assert capitals.f1(true, true) == (1, 1, 1)
    assert capitals.f1([""] * 5, true) == (0, 0, 0)
    # capitals: 1 right of 2 said and 2 true; punctuation: 1 right of 3 said and 2 true
    assert capitals.f1(["^", "^", ".", ".", ","], true) == pytest.approx((1 / 2, 2 / 5, 4 / 9))


@pytest.mark.parametrize("offsets", [(), (1, -1), (2, 1, -1)])
def test_n_gram_taggers_know_what_they_counted(offsets):
    from pyrnn.examples import capitals

    characters, labels = capitals.strip(VERSE * 3)
    said = capitals.NGramTagger(characters, labels, offsets)(characters)
    assert len(said) == len(labels)
    assert capitals.f1(said, labels)[2] > (0.9 if offsets else 0.6)
    assert len(capitals.NGramTagger(characters, labels, offsets)("unknown words\n")) == 14


def test_capitals_are_learned():
    from pyrnn.examples import capitals

    characters, labels = capitals.strip(VERSE * 40)
    label = capitals.train(characters, labels, hidden=16, epochs=6, steps=40, batch=4, lr=0.01)
    assert capitals.f1(label(characters[:200]), labels[:200])[2] > 0.9


def test_capitals_command(tmp_path):
    (tmp_path / "verse.txt").write_text(VERSE * 300)
    output = run("capitals", "--data", tmp_path / "verse.txt", "--hidden", 8, "--epochs", 1)
    rows = rows_of(output)
    assert [*rows] == [f"{way}, {what}" for way in ("network", "best n-gram tagger")
                       for what in ("capitals", "punctuation", "both")]  # fmt: skip
    assert all(0 <= figure <= 1 for row in rows.values() for figure in row)


def test_tenths_are_the_whole_text_line_by_line():
    from pyrnn.examples import capitals

    original = "".join(f"Line {k}, of {k**5}.\n" for k in range(200))
    tenths = capitals.split(original)
    assert len(tenths) == 10
    assert "".join(capitals.restore(*part) for part in tenths) == original
    assert all(abs(len(characters) - len(original) * 0.085) < 60 for characters, _ in tenths)
    assert all(characters.endswith("\n") for characters, _ in tenths)


# char_lm ---------------------------------------------------------------------------------------------------------


def test_char_lm_stands_beside_n_grams(tmp_path):
    pytest.importorskip("matplotlib")
    text, picture = tmp_path / "text.txt", tmp_path / "losses.png"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 60, encoding="utf-8")
    output = run("char_lm", "--data", text, "--hidden", 32, "--layers", 2, "--epochs", 12, "--batch", 4, "--steps", 16,
                 "--plot", picture)  # fmt: skip
    lines = [line.split() for line in output.splitlines()]
    bits = {line[0]: float(line[-4]) for line in lines if line and line[0] in ("2-gram", "3-gram", "5-gram", "LSTM,")}
    assert bits["5-gram"] < bits["3-gram"] < bits["2-gram"]
    assert bits["LSTM,"] < 4
    assert picture.stat().st_size > 10_000


def test_char_lm_refuses_what_is_no_text(tmp_path):
    (tmp_path / "short.txt").write_text("short", encoding="utf-8")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe" * 40)
    assert "too short" in run("char_lm", "--data", tmp_path / "short.txt", code=1)
    assert "is not UTF-8" in run("char_lm", "--data", tmp_path / "bytes.txt", code=1)


# word_lm ---------------------------------------------------------------------------------------------------------


def rhymes(path, rng, count):
    """The last word of a line is its first: too far for a trigram."""
    words = rng.choice(["red", "blue", "grey", "green", "brown", "white"], count)
    path.write_text("".join(f"{word.title()} cats aren't {word}.\n" for word in words))
    return path


def test_word_lm_parts_have_the_words_of_the_first(tmp_path):
    from pyrnn.examples import word_lm

    (tmp_path / "a.txt").write_text("To-day, it's\nto be 2 " * 120 + "twice twice once new new " * 45)
    words, (train, valid, test) = word_lm.read(tmp_path / "a.txt")
    assert words.words == ["<unknown>", "\n", ",", "-", "2", "be", "day", "it's", "to"]
    assert words.decode(train[:9]) == ["to", "-", "day", ",", "it's", "\n", "to", "be", "2"]
    assert (len(train), len(valid), len(test)) == (1044, 130, 131)
    assert not test.any()


def test_word_lm_has_probabilities_of_the_words_that_follow_and_their_gradient(rng):
    from pyrnn.examples import word_lm

    model = word_lm.WordModel(7, 5, 0)
    ids = rng.integers(0, 7, 300)
    logits, _ = model(ids[:-1, None])
    shares = np.exp(logits[:, 0] - np.log(np.exp(logits[:, 0]).sum(axis=-1, keepdims=True)))
    found = model.probabilities(ids)
    np.testing.assert_allclose(found, shares[np.arange(299), ids[1:]], rtol=1e-4)
    assert word_lm.perplexity(found) == pytest.approx(np.exp(-np.log(found).mean()))
    model.drop.p = 0.0
    (logits, _), pullback = model.vjp(ids[:20, None])
    direction = rng.normal(size=logits.shape)
    pullback(direction)
    for name, grad in model.grads.items():
        weight, along = model.params[name], rng.normal(size=grad.shape)
        kept, ends = weight.copy(), []
        for step in (0.003, -0.003):
            weight[:] = kept + step * along
            ends.append(np.sum(model(ids[:20, None])[0] * direction))
        weight[:] = kept
        assert np.sum(grad * along) == pytest.approx((ends[0] - ends[1]) / 0.006, rel=2e-2, abs=2e-2), name


def test_word_lm_weighs_mixtures_for_the_best(rng):
    from pyrnn.examples import word_lm

    parts = rng.random((3, 400)) * [[0.9], [0.7], [0.1]]
    weights = word_lm.weigh(parts)
    assert weights.sum() == pytest.approx(1)
    best = np.log(weights @ parts).mean()
    for _ in range(30):
        assert np.log(rng.dirichlet([1, 1, 1]) @ parts).mean() <= best + 1e-6


def test_word_lm_command(rng, tmp_path):
    pytest.importorskip("matplotlib")
    options = ("--width", 48, "--epochs", 200, "--plot", tmp_path / "w.png")
    output = run("word_lm", "--data", rhymes(tmp_path / "a.txt", rng, 500), *options)
    rows = dict(re.findall(r"^(\w.*?)  +[\d.]+ +([\d.]+)$", output, re.M))
    assert float(rows["LSTM"]) < 0.9 * float(rows["trigram, Kneser-Ney"])
    assert float(rows["trigram"]) < float(rows["bigram"])
    assert (tmp_path / "w.png").stat().st_size > 10_000


# turing_machine --------------------------------------------------------------------------------------------------


def test_a_head_goes_where_it_is_told(rng):
    """By content with a strong key and the gate open, from where it was with the gate shut; then on by a slot."""
    from pyrnn.examples import turing_machine as t

    memory = rng.normal(size=(1, 7, t.WIDTH))
    before = np.eye(7)[[[2, 6]]]
    raw = np.zeros((1, 2, t.WIDTH + 6))
    raw[:, :, t.WIDTH] = 100  # strength
    raw[:, :, t.WIDTH + 5] = 10  # sharpness
    raw[0, 0, : t.WIDTH], raw[0, 0, t.WIDTH + 1 : t.WIDTH + 5] = 3 * memory[0, 4], (30, 30, 0, 0)  # found, one back
    raw[0, 1, t.WIDTH + 1 : t.WIDTH + 5] = (-30, 0, 0, 30)  # as before, one on: to the first
    weights, _ = t.address(memory, before, raw)
    np.testing.assert_allclose(weights[0], np.eye(7)[[3, 0]], atol=1e-6)
    np.testing.assert_allclose(t.address(memory, before, rng.normal(size=raw.shape))[0].sum(axis=-1), 1)


def test_the_machine_has_its_gradient(rng):
    from pyrnn.examples import turing_machine as t

    machine = t.Machine(4, 3, 7, 6, "float64", rng=0)
    x, direction = rng.normal(size=(6, 3, 4)), rng.normal(size=(6, 3, 3))
    logits, pullback = machine.vjp(x)
    np.testing.assert_array_equal(logits, machine(x))
    pullback(direction)
    for name, grad in machine.grads.items():
        weight, along = machine.params[name], rng.normal(size=grad.shape)
        kept, ends = weight.copy(), []
        for step in (1e-6, -1e-6):
            weight[:] = kept + step * along
            ends.append(np.sum(machine(x) * direction))
        weight[:] = kept
        assert np.sum(grad * along) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8), name


def test_what_is_to_be_copied_stands_in_the_input(rng):
    from pyrnn.examples import turing_machine as t

    x, wanted = t.draw(3, 2, 5, rng)
    assert (x.shape, wanted.shape) == ((3 + 1 + 6 + 1, 5, 10), (7, 5, 9))
    np.testing.assert_array_equal(wanted[:6, :, :8], np.tile(x[:3, :, :8], (2, 1, 1)))
    np.testing.assert_allclose(x[3, :, 8:], [[1, 0.2]] * 5)
    assert not x[4:].any()
    assert wanted[:, 0, 8].tolist() == [0] * 6 + [1]
    lstm, machine = t.lstm_of(5000, rng), t.Machine(10, 9, 20, 4, rng=0)
    assert 4500 < lstm.num_parameters <= 5000
    assert 28 < t.wrong(machine, 8, 1, rng).mean() < 50  # half of 64 bits, and some of the 9 that say the end


def test_turing_machine_command(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("turing_machine", "--hidden", 32, "--longest", 4, "--updates", 220, "--plot", tmp_path / "t.png")
    rows = re.findall(r"^(repeat copy|copy), (machine|LSTM) of (\d+) parameters:  (. x .) ([\d.]+) \(", output, re.M)
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (task, name, case) for task, case in (("copy", "4 x 1"), ("repeat copy", "1 x 3"))
        for name in ("machine", "LSTM")
    ]  # fmt: skip
    assert 0.9 < int(rows[1][2]) / int(rows[0][2]) <= 1
    assert float(rows[2][4]) < 8  # of 24 bits, half by chance
    assert (tmp_path / "t.png").stat().st_size > 10_000


# char_transformer ------------------------------------------------------------------------------------------------


def test_transformer_has_its_gradient_and_does_not_look_ahead(rng):
    from pyrnn.examples import char_transformer as t

    model = t.Transformer(7, 8, 0)
    ids = rng.integers(0, 7, (12, 2))
    (logits, state), pullback = model.vjp(ids)
    assert state is None
    changed = model(np.concatenate([ids[:9], 6 - ids[9:]]))[0]
    np.testing.assert_array_equal(changed[:9], logits[:9])
    assert not np.array_equal(changed[9:], logits[9:])
    direction = rng.normal(size=logits.shape)
    pullback(direction)
    for name in ("embed.weight", "layers.0.linear1.weight", "layers.3.self_attn.in_proj_weight", "head.bias"):
        weight, grad = model.params[name], model.grads[name]
        kept, along, ends = weight.copy(), rng.normal(size=grad.shape), []
        for step in (0.001, -0.001):
            weight[:] = kept + step * along
            ends.append(np.sum(model(ids)[0] * direction))
        weight[:] = kept
        assert np.sum(grad * along) == pytest.approx((ends[0] - ends[1]) / 0.002, rel=2e-2, abs=2e-2), name


def test_windows_tell_of_each_character_once(rng):
    from pyrnn.examples import char_transformer as t

    model, ids = t.Transformer(7, 8, 0), rng.integers(0, 7, 3 * 64 + 1)
    told = []
    for start in (0, 64):  # the second halves of two windows
        window = ids[start : start + 128]
        shares = np.exp(model(window[:, None])[0][64:, 0])
        after = ids[start + 65 : start + 129]
        told.append(np.log2(shares[np.arange(64), after] / shares.sum(axis=-1)))
    assert t.bits(model, ids) == pytest.approx(-np.mean(told), rel=1e-5)


def test_char_transformer_command(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 130)
    output = run("char_transformer", "--data", tmp_path / "a.txt", "--width", 32, "--updates", 24,
                 "--plot", tmp_path / "r.png")  # fmt: skip
    rows = re.findall(r"^(LSTM|Transformer), (\d) x \d+ +([\d.]+) +([\d.]+) +[\d.]+ +([\d,]+) ", output, re.M)
    assert [row[:2] for row in rows] == [("Transformer", "4"), ("LSTM", "2")]
    assert max(float(figure) for row in rows for figure in row[2:4]) < 4  # of log2(28) = 4.8
    one, other = (int(row[4].replace(",", "")) for row in rows)
    assert 0.93 < other / one <= 1
    assert (tmp_path / "r.png").stat().st_size > 10_000


# captions --------------------------------------------------------------------------------------------------------


def test_scenes_are_what_their_sentences_say(rng):
    from pyrnn.examples import captions

    pictures, sentences = captions.scenes(100, "training", rng)
    assert pictures.shape == (100, 9, 192)
    for picture, sentence in zip(pictures, sentences, strict=True):
        cells = picture.reshape(9, 64, 3)
        told = dict.fromkeys(range(9), (0, 0, 0))
        for part in sentence.split(" and "):
            _, colour, shape, _, _, *place = part.split()
            assert shape in captions.SHAPES
            told[captions.PLACES.index(" ".join(place))] = captions.COLOURS[colour]
        for k, colour in told.items():
            brightest = np.sort(cells[k], axis=0)[-9:].mean(axis=0)  # over shapes of at least 12 pixels
            assert tuple(brightest > 0.45) == tuple(map(bool, colour))
    assert 1 <= min(s.count(" at ") for s in sentences) < max(s.count(" at ") for s in sentences) <= 3
    told = [
        set(captions.scenes(n, part, rng)[1]) for n, part in [(3000, "training"), (200, "validation"), (200, "test")]
    ]
    assert sum(map(len, told)) == len(set.union(*told))
    assert set(" ".join(sentences).split()) <= set(captions.WORDS)


def test_captions_command(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("captions", "--hidden", 16, "--steps", 60, "--count", 300, "--plot", tmp_path / "c.png")
    assert "right of 300 scenes " in output
    assert [*rows_of(output)] == ["1 shape", "2 shapes", "3 shapes", "all"]
    assert re.search(r"^For instance: a ", output, re.M)
    assert (tmp_path / "c.png").stat().st_size > 10_000


# slots -----------------------------------------------------------------------------------------------------------


def request_files(folder, rng, counts=(300, 60)):
    """Requests whose slots are found by the words around them, some with two words and some next to another slot."""
    for name, count in zip(("train", "test"), counts, strict=True):
        lines = []
        for _ in range(count):
            city = " ".join(rng.choice(["Rome", "Paris", "York", "Lima"], rng.integers(1, 3)))
            song = " ".join(rng.choice(["hello", "Paris", "sun"], rng.integers(1, 3)))
            lines.append([
                {"intent": "weather", "parts": [["is it hot in ", None], [f" {city}", "city"], [" ", None],
                                                [rng.choice(["now", "today"]), "time"], ["?", None]]},
                {"intent": "play", "parts": [["play ", None], [song, "song"]]},
            ][rng.integers(2)])  # fmt: skip
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_slots_are_read_with_their_ends_and_found_again(tmp_path, rng):
    from pyrnn.examples import slots

    part = [
        ["Play\u00e9 ", None],
        [" New York's ", "song"],
        ["2", "count"],
        ["times", "unit"],
        [" ", "none"],
        ["!", None],
    ]
    (tmp_path / "a.jsonl").write_text(f"{json.dumps({'intent': 'play', 'parts': part})}\n" * 20, encoding="utf-8")
    request = slots.read(tmp_path / "a.jsonl")[7]
    assert request.words == ["Play\u00e9", "New", "York", "'", "s", "2", "times", "!"]
    assert request.tags == ["O", "B-song", *["I-song"] * 3, "B-count", "B-unit", "O"]
    assert request.slots == {(7, 17, "song"), (18, 19, "count"), (19, 24, "unit")}
    assert slots.spans(request, request.tags) == request.slots
    said = ["O", "I-song", "B-song", "I-song", "I-count", "I-count", "O", "B-unit"]
    assert slots.spans(request, said) == {(7, 10, "song"), (11, 16, "song"), (16, 19, "count"), (25, 26, "unit")}
    for read in map(slots.read, request_files(tmp_path, rng).glob("t*.jsonl")):
        assert all(slots.spans(request, request.tags) == request.slots for request in read)


def test_slots_without_crf_choose_each_tag_alone(tmp_path, rng):
    from pyrnn.examples import slots

    requests = slots.read(request_files(tmp_path, rng) / "train.jsonl")
    network = slots.train(requests[:64], False, 8, 1, rng)
    assert not any(values.any() for values in network.crf.params.values())
    ids, lengths, *letters = network.arrays(requests[:9])
    assert letters[1].reshape(ids.shape)[0].tolist() == [len(request.words[0]) for request in requests[:9]]
    scores, _ = network(ids, lengths, *letters)
    tags = [[network.tags.index(tag) for tag in request.tags] for request in requests[:9]]
    padded = pyrnn.data.pad(tags)[0]
    mean, _ = pyrnn.cross_entropy(scores, padded, lengths=lengths)
    assert network.crf.vjp(scores, padded, lengths)[0] == pytest.approx(mean * lengths.mean(), rel=1e-5)
    for row, length, one in zip(scores.argmax(-1).T, lengths, network.read(requests[:9])[0], strict=True):
        assert one == [network.tags[k] for k in row[:length]]


def test_slots_pullback_is_the_gradient(tmp_path, rng):
    """Of a weight in each layer, by differences of the loss; without dropout a call and vjp are the same function."""
    from pyrnn.examples import slots

    requests = slots.read(request_files(tmp_path, rng) / "train.jsonl")[:6]
    network = slots.Network(requests, True, 5, rng)
    network.drop.p = 0.0
    arrays = network.arrays(requests)
    (scores, logits), pullback = network.vjp(*arrays)
    directions = rng.normal(size=scores.shape), rng.normal(size=logits.shape)
    directions[0][np.arange(len(scores))[:, None] >= arrays[1]] = 0
    pullback(*directions)

    def value():
        return sum(float(np.sum(a * b)) for a, b in zip(network(*arrays), directions, strict=True))

    for name in ["embed.weight", "embed_letters.weight", "spell.weight_hh_l0_reverse", "rnn.weight_ih_l0",
                 "slots.weight", "intent.bias"]:  # fmt: skip
        weight, grad = network.params[name], network.grads[name]
        place = np.unravel_index(np.abs(grad).argmax(), grad.shape)
        kept, ends = weight[place], []
        for step in (0.01, -0.01):
            weight[place] = kept + step
            ends.append(value())
        weight[place] = kept
        assert grad[place] == pytest.approx((ends[0] - ends[1]) / 0.02, rel=2e-2), name


def test_slots_command(tmp_path, rng):
    pytest.importorskip("matplotlib")
    output = run("slots", "--data", request_files(tmp_path, rng), "--hidden", 16, "--epochs", 6,
                 "--plot", tmp_path / "s.png")  # fmt: skip
    rows = re.findall(r"^(with\w*) CRF +(\d+ .*?) +slots F1 ([\d.]+)% +intent ([\d.]+)%$", output, re.M)
    assert [row[:2] for row in rows] == [
        (way, part) for way in ("without", "with") for part in ("15 held out", "60 of the test")
    ]
    assert min(float(figure) for row in rows[2:] for figure in row[2:]) > 90
    assert (tmp_path / "s.png").stat().st_size > 10_000


# spoken_digits ---------------------------------------------------------------------------------------------------


def digit_file(path, rng, **changed):
    """Each of four digits noise and then a tone of its own, 18 times by each of two speakers, one of them softer."""
    digit, speaker, take = (part.ravel() for part in np.meshgrid([0, 3, 6, 9], ["a", "b"], np.arange(18)))
    lengths = rng.integers(900, 1300, len(digit))
    tones = [
        np.sin(2 * np.pi * (300 + 300 * int(d)) / 8000 * np.arange(n)) for d, n in zip(digit, lengths, strict=True)
    ]
    sounds = [
        rng.normal(0, 20, len(tone)) + (4000 if who == "a" else 2000) * tone * (np.arange(len(tone)) > 400)
        for tone, who in zip(tones, speaker, strict=True)
    ]
    arrays = {
        "audio": np.concatenate(sounds).astype("int16"),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "digit": digit.astype("int8"),
        "speaker": speaker,
        "take": take,
    }
    arrays |= changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_spoken_digits_hide_bands_and_frames_in_training_only(rng):
    from pyrnn.examples import spoken_digits as d

    hide, x = d.Hide(rng), np.ones((30, 50, d.BANDS), "float32")
    assert np.array_equal(hide(x), x)
    y, _ = hide.vjp(x)
    assert x.all()
    assert set(np.unique(y)) == {0, 1}
    frames, bands = (~y.any(axis=axis) for axis in (2, 0))  # (T, N), (N, BANDS)
    assert 0 < frames.sum(axis=0).max() < 10
    assert 7 < bands.sum(axis=1).max() < 15
    assert np.array_equal(y == 0, frames[:, :, None] | bands)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"take": None}, "there is no array 'take', expected audio, offsets, digit, speaker, take"),
        ({"offsets": np.arange(9)}, "expected 145 offsets"),
        ({"digit": np.full(144, 10)}, "digit has 10, expected 0 to 9"),
        ({"take": np.zeros(144, int)}, "0 recordings of takes from 10 on are too few"),
    ],
)
def test_spoken_digits_need_their_arrays(changed, message, rng, tmp_path):
    output = run("spoken_digits", "--data", digit_file(tmp_path / "d.npz", rng, **changed), code=1)
    assert output.startswith("Error: ")
    assert message in output


def test_spoken_digits_need_an_archive(tmp_path):
    (tmp_path / "d.npz").write_text("no archive")
    assert "d.npz is no .npz archive" in run("spoken_digits", "--data", tmp_path / "d.npz", code=1)


def test_spoken_digits_command(rng, tmp_path):
    pytest.importorskip("matplotlib")
    output = run("spoken_digits", "--data", digit_file(tmp_path / "d.npz", rng), "--hidden", 16, "--epochs", 60,
                 "--plot", tmp_path / "d.png")  # fmt: skip
    known = [float(part) for part in re.findall(r"^takes \d to \d: ([\d.]+)% of 40 right$", output, re.M)]
    assert len(known) == 2
    assert min(known) > 60  # by chance 25
    new = [float(part) for part in re.findall(r"^[ab], never heard: ([\d.]+)% of 72 right$", output, re.M)]
    total = float(re.search(r"^([\d.]+)% right of 144 recordings by speakers never heard$", output, re.M)[1])
    assert total == pytest.approx(np.mean(new), abs=0.11)
    assert total > 40
    assert (tmp_path / "d.png").stat().st_size > 10_000


# spoken_numbers --------------------------------------------------------------------------------------------------


def test_digit_errors_are_those_of_the_shortest_way():
    from pyrnn.examples.spoken_numbers import edits

    def shortest(said, true):
        if not said or not true:
            return len(said) + len(true)
        return min(
            shortest(said[1:], true[1:]) + (said[0] != true[0]),
            shortest(said[1:], true) + 1,
            shortest(said, true[1:]) + 1,
        )

    rng = np.random.default_rng(0)
    for _ in range(60):
        said, true = (rng.integers(1, 4, rng.integers(0, 6)) for _ in range(2))
        assert edits(said, true) == shortest(said.tolist(), true.tolist())


def test_a_number_is_said_by_one_speaker_without_pauses(rng):
    from types import SimpleNamespace

    from pyrnn.examples import spoken_numbers

    speaker = np.repeat(["a", "b"], 20)
    sizes = {"a": 800, "b": 1600}  # samples of a digit
    recordings = SimpleNamespace(
        speaker=speaker,
        digit=np.tile(np.arange(10), 4).astype("int8"),
        samples=[rng.normal(size=sizes[s]) for s in speaker],
    )
    lengths, seconds = set(), set()
    for number in spoken_numbers.dial(recordings, np.arange(40) % 10 < 5, 60, rng):
        digits = len(number.ids)
        assert set(number.ids) <= {1, 2, 3, 4, 5}
        each = (len(number.features) - 1) / 100 / digits
        np.testing.assert_allclose(number.seams, each * np.arange(1, digits))
        lengths.add(digits)
        seconds.add(round(each, 6))
    assert lengths == set(range(3, 9))
    assert seconds == {0.1, 0.2}


def test_spoken_numbers_are_learned(rng, tmp_path):
    from pyrnn.examples import spoken_numbers

    recordings = spoken_numbers.Recordings(digit_file(tmp_path / "d.npz", rng))
    network = spoken_numbers.train(recordings, recordings.take >= 10, 32, 140, 0)
    found = spoken_numbers.wrong(network, spoken_numbers.dial(recordings, recordings.take < 5, 20, rng), 0)
    assert found["by a beam"] < 15  # who says nothing has 100


def test_spoken_numbers_command(rng, tmp_path):
    pytest.importorskip("matplotlib")
    output = run("spoken_numbers", "--data", digit_file(tmp_path / "d.npz", rng), "--hidden", 4, "--steps", 2,
                 "--numbers", 5, "--plot", tmp_path / "n.png")  # fmt: skip
    rows = {line[:20].strip(): re.findall(r"([\d.]+)% ", line) for line in output.splitlines()[1:]}
    assert [*rows] == ["takes 5 to 9", "takes 0 to 4", "a, never heard", "b, never heard", "a new speaker"]
    assert {len(figures) for figures in rows.values()} == {3}
    one, other, both = (np.array(rows[name], float) for name in [*rows][2:])
    np.testing.assert_allclose(both, (one + other) / 2, atol=0.11)
    assert (tmp_path / "n.png").stat().st_size > 10_000


# moving_shapes ---------------------------------------------------------------------------------------------------


def test_moving_shapes_are_seen_by_a_convolution_in_the_plane(rng):
    """By loops over pixels, with the weights that the rows have, and its pullback by the definition of a derivative."""
    from pyrnn.examples import moving_shapes as m

    plane = m.Plane(2, 3)
    x = rng.normal(size=(4, 5, 6, 2)).astype("float32")  # (H, F, W, C)
    y, pullback = plane.vjp(x)
    weight, bias = plane.params["rows.weight"].reshape(3, 3, 2, 3), plane.params["rows.bias"]  # (O, across, C, down)
    around = np.pad(x, ((1, 1), (0, 0), (1, 1), (0, 0))).astype("float64")
    for row, column in np.ndindex(2, 3):
        part = around[2 * row : 2 * row + 3, :, 2 * column : 2 * column + 3]  # (down, F, across, C)
        np.testing.assert_allclose(y[row, :, column], np.einsum("dfac,oacd->fo", part, weight) + bias, atol=1e-5)
    dy, direction = rng.normal(size=y.shape), rng.normal(size=x.shape)
    slope = np.sum((plane(x + direction) - plane(x - direction)) * dy) / 2  # it is linear
    assert np.sum(pullback(dy) * direction) == pytest.approx(slope, rel=1e-4)


def test_a_motion_is_another_one_backwards(monkeypatch):
    """Frames without their order say nothing of which: backwards a video of one is one of the other, noise and all."""
    from pyrnn.examples import moving_shapes as m

    monkeypatch.setattr(m, "NOISE", 0.02)
    videos, motions = m.film(1200, np.random.default_rng(0))
    assert videos.shape == (1200, m.FRAMES, m.SIDE, m.SIDE)
    assert np.bincount(motions, minlength=8).min() > 100
    weights = np.clip(videos - 2 * m.NOISE, 0, None).astype("float64")
    total = weights.sum(axis=(2, 3))
    places = np.arange(m.SIDE)
    x, y = (np.sum(weights * grid, axis=(2, 3)) / total for grid in (places, places[:, None]))
    turn = np.mean(
        (x[:, :-1] - x.mean(1, keepdims=True)) * np.diff(y) - (y[:, :-1] - y.mean(1, keepdims=True)) * np.diff(x), 1
    )
    told = {0: x[:, -1] - x[:, 0], 2: y[:, -1] - y[:, 0], 4: turn, 6: total[:, -1] - total[:, 0]}
    for first, change in told.items():
        there, back = change[motions == first], change[motions == first + 1]
        assert np.median(there) > 0 > np.median(back)
        assert np.median(there) == pytest.approx(-np.median(back), rel=0.15)
    mixed = m.shuffled(videos[:50], np.random.default_rng(1))
    for video, other in zip(videos, mixed, strict=False):
        assert sorted(frame.tobytes() for frame in video) == sorted(frame.tobytes() for frame in other)
    assert not np.array_equal(mixed, videos[:50])


def test_the_order_of_frames_is_learned(monkeypatch):
    """Up and down, with little noise: 400 videos teach which of the two it is, and shuffled none says it."""
    from pyrnn.examples import moving_shapes as m

    monkeypatch.setattr(m, "NOISE", 0.05)
    rng = np.random.default_rng(0)
    (videos, motions), (new, true) = (
        (part[0][part[1] // 2 == 1], part[1][part[1] // 2 == 1]) for part in (m.film(1600, rng), m.film(800, rng))
    )
    network = m.train(videos, motions, 64, 11, 0)
    in_order, mixed = (m.opinions(network, some)[:, -1].argmax(axis=1) for some in (new, m.shuffled(new, rng)))
    assert np.mean(in_order == true) > 0.66  # of 200 by chance it is within 0.4 to 0.6
    assert 0.36 < np.mean(mixed == true) < 0.64


def test_moving_shapes_command(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("moving_shapes", "--hidden", 4, "--videos", 100, "--epochs", 1, "--plot", tmp_path / "m.png")
    rows = re.findall(r"^ *([\d.]+)% right, of the pairs ([\d.]+)%: (.*)", output, re.M)
    assert len(rows) == 3
    assert all(float(right) <= float(pairs) for right, pairs, _ in rows)
    assert (tmp_path / "m.png").stat().st_size > 10_000


# name_writer -----------------------------------------------------------------------------------------------------


def test_name_writer_command(tmp_path):
    pytest.importorskip("matplotlib")
    from itertools import product

    for language, (first, second) in {"Vowelish": ("aeiou", "aeiou"), "Zaratan": ("bdgz", "kptw")}.items():
        names = {a + b + c + d for a, b, c, d in list(product(first, second, first, second))[::7]}
        (tmp_path / f"{language}.txt").write_text("\n".join(sorted(names)) + "\n")
    output = run(
        "name_writer", "--data", tmp_path, "--hidden", 24, "--epochs", 60, "--count", 40,
        "--temperature", 1.0, "--plot", tmp_path / "n.png",
    )  # fmt: skip
    new, right = re.search(r"80 names: ([\d.]+)% new.*recognised in ([\d.]+)% of the new", output, re.DOTALL).groups()
    assert float(new) > 20
    assert float(right) > 80  # no letter of one language is in the other
    assert (tmp_path / "n.png").stat().st_size > 10_000


# swing_up --------------------------------------------------------------------------------------------------------


def test_the_pendulum_falls_as_equations_say():
    """By hand in float64, from Gym's Pendulum-v1; and a return is what its steps are worth."""
    from pyrnn.examples import swing_up as s

    rng = np.random.default_rng(0)
    angle, speed = s.start(50, rng)
    assert (angle.min(), angle.max()) == pytest.approx((-np.pi, np.pi), abs=0.3)
    torque = rng.uniform(-2, 2, 50).astype("f4")
    new_angle, new_speed, reward = s.turn(angle + np.float32(2 * np.pi), speed, torque)
    expected = np.clip(speed + (15 * np.sin(angle.astype("f8")) + 3 * torque) * 0.05, -8, 8)
    np.testing.assert_allclose(new_speed, expected, atol=1e-5)
    np.testing.assert_allclose(new_angle - 2 * np.pi, angle + 0.05 * expected, atol=1e-5)
    np.testing.assert_allclose(reward, -(angle.astype("f8") ** 2 + 0.1 * speed**2 + 0.001 * torque**2), atol=1e-4)
    fastest = s.turn(angle, np.full(50, 8, "f4"), torque)[1]
    assert fastest.max() == 8  # downhill it would be more
    returns = np.array([[3.0, -1], [-1e9, 7], [4, -2], [1, -3]])
    np.testing.assert_allclose(s.ranks(returns), [1 / 6, 0, 1 / 6, -1 / 3], atol=1e-6)


def test_a_controller_knows_no_left_and_no_right():
    from pyrnn.examples import swing_up as s

    many = pyrnn.Population(pyrnn.Sequential(pyrnn.GRU(3, 4), pyrnn.Linear(4, 1)), size=2, rng=0)
    start = np.array([[0.0, 0.5, 2], [0, 0.5, 2]], "f4")
    total, angles = s.play(many, start, start / 4)
    mirrored, mirror = s.play(many, -start, -start / 4)
    np.testing.assert_allclose(mirror[:40], -angles[:40], atol=1e-3)
    assert total[0, 0] == mirrored[0, 0] == 0  # it stands, until somebody touches it
    alone, own = s.play(many[1], start[1], start[1] / 4)
    np.testing.assert_array_equal(alone, total[1])
    np.testing.assert_array_equal(own, angles[:, 1])


def test_swing_up_command(tmp_path):
    pytest.importorskip("matplotlib")
    options = ("--models", 32, "--generations", 6, "--starts", 2, "--hidden", 4, "--plot", tmp_path / "s.png")
    output = run("swing_up", *options)
    before, after = map(float, re.search(r"starts: (\S+) before, (\S+) after", output).groups())
    assert -3300 < before < after < 0
    assert "384 episodes" in output
    assert (tmp_path / "s.png").stat().st_size > 10_000


# sensors ---------------------------------------------------------------------------------------------------------


def test_sensors_command(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from pyrnn.examples import sensors

    monkeypatch.setattr(sensors, "DAYS", 4)
    monkeypatch.setattr(sensors, "LEARNED", 3)
    degrees = sensors.rooms(3, np.random.default_rng(0))
    x, targets = sensors.examples(degrees)
    np.testing.assert_allclose(x[:, 10, 0] + targets[:, 10, 4], degrees[:, 16], rtol=1e-5)
    np.testing.assert_allclose(x[:, 10, 1], degrees[:, 11] - degrees[:, 10], atol=1e-5)
    output = run("sensors", "--count", 2, "--hidden", 8, "--updates", 30, "--batch", 8, "--plot", tmp_path / "s.png")
    assert "the same to the bit" in output
    off = {way.strip(): float(found) for way, found in re.findall(r"^(.{14}) ([\d.]+) degrees off", output, re.M)}
    assert off["own GRU"] < off["as it is"]
    assert len(off) == 4
    assert (tmp_path / "s.png").stat().st_size > 10_000
