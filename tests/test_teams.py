"""Teams of 8, 16 and 64 threads, whatever CPUs there are: what each thread does, counted, and the same bits.

tests/teams.cpp holds the sources that share work with counters in them. What is counted there follows from shapes and
sizes of teams alone, so it says of 64 cores what two can show.
"""

import functools
import json
import os
import platform
import shlex
import subprocess
import sysconfig

import numpy as np
import pytest
from cells import FEW, assert_same_bits
from test_same_bits import Case
from test_threads_source import SOURCES

import pyrnn

TEAMS = (1, 2, 4, 8, 16, 64)
# op, its numbers: T, N, I = H of an LSTM; rows, inputs, outputs; heads, queries = keys, features
CASES = [
    ("lstm", (8, 64, 64)),  # a row for each of 64 threads
    ("lstm", (8, 16, 64)),
    ("lstm", (16, 1, 160)),  # units
    ("lstm", (6, 8, 160)),  # rows and units
    ("linear", (256, 256, 192)),
    ("attention", (8, 256, 16)),
    ("attention", (2, 600, 4)),
]


def compiled(folder, *options):
    """The program: its path."""
    compiler = shlex.split(sysconfig.get_config_var("CXX") or "c++")[0]
    command = [compiler, "-std=c++20", "-pthread", f"-I{SOURCES}", *options, SOURCES.parent / "tests" / "teams.cpp"]
    subprocess.run([*command, "-o", folder / "teams"], check=True)
    return folder / "teams"


def counted(program, requests):
    """A dict for each line of the program: requests are (op, threads, numbers)."""
    arguments = [text for op, threads, n in requests for text in (op, f"{threads}:{','.join(map(str, n))}")]
    environment = {**os.environ, "PYRNN_WAKE": "patient"}
    result = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def teams(tmp_path_factory):
    """By case and number of threads."""
    if not SOURCES.is_dir():
        pytest.skip("not among the sources")
    own = ("-msse4.2",) if platform.machine() in ("x86_64", "AMD64") else ()
    program = compiled(tmp_path_factory.mktemp("teams"), "-O0", *own)
    lines = counted(program, [(op, threads, numbers) for threads in TEAMS for op, numbers in CASES])
    return {(line["case"], line["threads"]): line for line in lines}


def of_case(teams, name):
    return [line for (case, _), line in teams.items() if case == name]


def test_any_team_does_the_same_work_with_the_same_bits(teams):
    for case in {case for case, _ in teams}:
        lines = of_case(teams, case)
        assert len({line["hash"] for line in lines}) == 1, case
        assert len({line["packs"] for line in lines}) == 1, case  # everything is packed once
        if case.endswith("both"):
            continue  # columns are dealt out besides
        assert len({line["work"] for line in lines}) == 1, case


def test_shares_are_even(teams):
    """Nobody has much more than a fair share of what those who have something to do share; more threads, less to do."""
    for case in ("lstm 8,64,64", "lstm 8,16,64", "lstm 16,1,160", "lstm 6,8,160", "linear 256,256,192"):
        for line in of_case(teams, case):
            assert line["most"] * line["busy"] <= 1.34 * line["work"], line
    busy = {case: [teams[case, threads]["busy"] for threads in TEAMS] for case, _ in teams}
    assert busy["lstm 8,64,64"] == busy["lstm 8,64,64 both"] == list(TEAMS)
    assert busy["lstm 8,16,64"] == [1, 2, 4, 8, 16, 16]  # all are busy while rows and work last
    assert busy["linear 256,256,192"][:5] == list(TEAMS)[:5]
    assert busy["linear 256,256,192"][5] > 48
    assert max(busy["attention 8,256,16 back"]) <= 8  # tasks: blocks of 256 keys of a head, for who comes first


def test_weights_are_read_in_parts_where_units_are_shared(teams):
    bytes_of = [teams["lstm 16,1,160", threads]["bytes"] for threads in TEAMS]
    assert bytes_of[0] == 2 * bytes_of[1] == 4 * bytes_of[2]
    assert bytes_of[3] <= 0.15 * bytes_of[0]


def test_meetings_do_not_grow_with_the_team(teams):
    """A meeting a step where units are shared, one for a block of gradients besides; and in each a thread looks at 7
    others for each factor of 8 at most."""
    for (case, threads), line in teams.items():
        levels = sum(threads > 8**k for k in range(3))
        assert line["looks"] <= 7 * levels * line["meetings"], line
        if case.startswith("lstm"):
            steps, rows = map(int, case.split()[1].split(",")[:2])
            blocks = -(-steps * rows // 128)
            most = threads * (2 * steps + blocks if case.endswith("both") else steps)
            assert line["meetings"] <= most, line
        if "team" in line:
            assert line["meetings"] == (steps * line["groups"] * line["team"] if line["team"] > 1 else 0), line
    shared = [(teams["lstm 6,8,160", n]["groups"], teams["lstm 6,8,160", n]["team"]) for n in (2, 4, 16)]
    assert shared == [(2, 1), (2, 2), (4, 4)]


def test_a_job_is_one_order_for_each_worker(teams):
    for (_, threads), line in teams.items():
        assert line["orders"] <= 4 * (threads - 1), line
        if threads == 1:
            assert line["orders"] == 0


# ---- the compiled module


@functools.cache
def problem():
    rng = np.random.default_rng(0)
    q, k, v, do = rng.standard_normal((4, 2, 3, 70, 40)).astype("float32")
    return {
        "rows": rng.standard_normal((100, 96)).astype("float32"),
        "qkvd": (q, k, v, do),
        "one": rng.standard_normal((1, 4, 1, 40)).astype("float32"),
        "long": rng.standard_normal((2, 1, 4, 3000, 40)).astype("float32"),
        "logits": rng.standard_normal((30, 20, 25)).astype("float32"),
        "targets": rng.integers(1, 25, (20, 9)),
        "tags": rng.integers(0, 25, (30, 20)),
    }


def others():
    """Results of what is no recurrent layer."""
    p = problem()
    linear = pyrnn.Linear(96, 130, rng=0)
    y, pullback = linear.vjp(p["rows"])
    yield from (y, pullback(y), *linear.grads.values(), linear(p["rows"][:5]))
    q, k, v, do = p["qkvd"]
    out, pullback = pyrnn.scaled_dot_product_attention_vjp(q, k, v, is_causal=True)
    yield from (out, *pullback(do), pyrnn.scaled_dot_product_attention(p["one"], *p["long"]))
    loss, gradient = pyrnn.ctc(p["logits"], p["targets"])
    yield from (np.asarray(loss), gradient)
    crf = pyrnn.CRF(25, rng=0)
    loss, pullback = crf.vjp(p["logits"], p["tags"])
    yield from (np.asarray(loss), pullback(), *crf.grads.values(), crf.decode(p["logits"]))
    many = pyrnn.Population(pyrnn.GRU(5, 20), size=6, rng=0)
    (y, state), pullback = many.vjp(p["rows"].reshape(6, 8, 4, 50)[..., :5])
    yield from (y, state, *pullback(y))


def assert_same_in_teams(run, *teams):
    with pyrnn.threads(1):
        expected = run()
    for n in teams or (8, 16):
        with pyrnn.threads(n):
            assert_same_bits(run(), expected)


@pytest.mark.parametrize("variant", FEW)
def test_recurrent_layers_in_teams_of_8_and_16(variant):
    """Rows, units, rows and units, and walked by one with another that assists."""
    for steps, rows, widths, walk in (
        (5, 40, (40, 48, 35), True),
        (10, 1, (100, 336, 150), False),
        (3, 9, (50, 336, 200), False),
        (300, 2, (40, 48, 35), True),
    ):
        case = Case(variant, "one", "float32", widths, steps=steps, rows=rows, walk=walk)
        assert_same_in_teams(case.run)


def test_a_long_row_among_many_short_ones():
    """Few rows are alive, but chunks are those of many."""
    case = Case("lstm", "one", "float32", (40, 48, 35), steps=600, rows=60)
    case.lengths[:] = 1
    case.lengths[7] = 600
    assert_same_in_teams(case.run, 2, 8)


def test_other_layers_in_teams_of_8_and_16():
    assert_same_in_teams(lambda: list(others()))
