"""A Neural Turing Machine: a network with a memory to write to learns to copy, and copies what is three times as long.

    python -m pyrnn.examples.turing_machine --plot turing_machine.png

    in          x (T, N, 10)          vectors of eight bits, then a mark and how often they are wanted, then nothing
    controller  h (N, H)              of x_t and of what was read one step before; it has no memory of its own
    heads       (N, 2, M + 6), ...    where to read and where to write, what to erase there and what to add
    memory      (N, S, M)             M = 20 numbers in each of S slots; no parameter depends on S
    out         logits (T, N, 9)      of the bits, and of an end after them, from h and from what is read now

Graves, Wayne & Danihelka 2014 (arXiv:1410.5401). A head finds slots by their content or stays where it was, and then
goes on by a slot or not. All of these are sums with weights, so there is a gradient, which is written out below. The
memory begins as a constant, with which it learns best (Collier & Beel 2018, arXiv:1807.08518). With an LSTM as the
controller, which can do without the memory at first, 6000 updates were not enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

import pyrnn
from pyrnn import plots

from . import count_option, lesson

BITS, WIDTH = 8, 20
Array = np.ndarray


def sigmoid(a: Array) -> Array:
    return 0.5 * np.tanh(0.5 * a) + 0.5


def softmax(a: Array) -> tuple[Array, Callable[[Array], Array]]:
    p: Array = np.exp(a - a.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p, lambda dp: p * (dp - (p * dp).sum(axis=-1, keepdims=True))


def unit(v: Array) -> tuple[Array, Callable[[Array], Array]]:
    """v / |v| over the last axis, and less where v is near 0."""
    scale = 1 / np.sqrt((v * v).sum(axis=-1, keepdims=True) + 1e-3)
    u = v * scale
    return u, lambda du: scale * (du - u * (u * du).sum(axis=-1, keepdims=True))


def address(memory: Array, before: Array, raw: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """Where two heads are: memory (N, S, M), their weights before (N, 2, S) and the controller's word (N, 2, M + 6)
    -> weights (N, 2, S), and a pullback: dweights -> dmemory, dbefore, draw."""
    key, strength, gate, by, sharp = np.split(raw, [WIDTH, WIDTH + 1, WIDTH + 2, WIDTH + 5], axis=-1)
    (rows, pull_rows), (key, pull_key), gate = unit(memory), unit(key), sigmoid(gate)
    high, power = np.logaddexp(0, strength), 1 + np.logaddexp(0, sharp)
    alike = key @ rows.swapaxes(1, 2)
    found, pull_found = softmax(high * alike)
    here = gate * found + (1 - gate) * before
    steps, pull_steps = softmax(by)
    sides = np.stack([np.roll(here, k, axis=-1) for k in (-1, 0, 1)], axis=-1)  # behind the last slot is the first
    moved = (sides @ steps[..., None])[..., 0] + 1e-12
    logs = np.log(moved)
    weights, pull_weights = softmax(power * logs)  # moved to some power, so that it stays sharp

    def pullback(dweights: Array) -> tuple[Array, Array, Array]:
        dlogs = pull_weights(dweights)
        dmoved = power * dlogs / moved
        dhere = sum(steps[..., [k + 1]] * np.roll(dmoved, -k, axis=-1) for k in (-1, 0, 1))
        dalike = pull_found(gate * dhere)
        draw = [pull_key(high * dalike @ rows), (dalike * alike).sum(axis=-1, keepdims=True) * sigmoid(strength),
                (dhere * (found - before)).sum(axis=-1, keepdims=True) * gate * (1 - gate),
                pull_steps((dmoved[..., None, :] @ sides)[..., 0, :]),
                (dlogs * logs).sum(axis=-1, keepdims=True) * sigmoid(sharp)]  # fmt: skip
        return pull_rows((high * dalike).swapaxes(1, 2) @ key), (1 - gate) * dhere, np.concatenate(draw, axis=-1)

    return weights, pullback


class Machine(pyrnn.Model):
    """x (T, N, I) -> logits (T, N, O). `slots` may change between calls."""

    def __init__(self, inputs: int, outputs: int, hidden: int, slots: int, dtype: str = "float32", rng: Any = None):
        super().__init__(rng=rng)
        self.slots, self.dtype = slots, np.dtype(dtype)
        self.controller = pyrnn.Linear(inputs + WIDTH, hidden, dtype=dtype)
        self.heads = pyrnn.Linear(hidden, 2 * (WIDTH + 6) + 2 * WIDTH, dtype=dtype)
        self.out = pyrnn.Linear(hidden + WIDTH, outputs, dtype=dtype)

    def vjp(self, x: Array) -> tuple[Array, Callable[[Array], None]]:
        rows, pulls, seen = x.shape[1], [], []
        memory = np.full((rows, self.slots, WIDTH), 1e-6, self.dtype)
        read, weights = np.zeros((rows, WIDTH), self.dtype), np.zeros((rows, 2, self.slots), self.dtype)
        weights[..., 0] = 1  # both heads begin at the first slot
        self.weights: list[Array] = []  # (N, 2, S) of each step
        for x_t in x:
            a, pull_controller = self.controller.vjp(np.concatenate([x_t, read], axis=-1))
            h = np.tanh(a)
            raw, pull_heads = self.heads.vjp(h)
            weights, pull_address = address(memory, weights, raw[:, : -2 * WIDTH].reshape(rows, 2, -1))
            reading, writing = weights[:, :1], weights[:, 1, :, None]
            erase, add = sigmoid(raw[:, None, -2 * WIDTH : -WIDTH]), np.tanh(raw[:, None, -WIDTH:])
            pulls.append((pull_controller, pull_heads, pull_address, memory, reading, writing, erase, add, h))
            read = (reading @ memory)[:, 0]
            memory = memory * (1 - writing * erase) + writing * add
            seen.append(np.concatenate([h, read], axis=-1))
            self.weights.append(weights)
        logits, pull_out = self.out.vjp(np.array(seen))

        def pullback(dlogits: Array) -> None:
            dmemory, dread, dbefore = np.zeros_like(memory), np.zeros_like(read), np.zeros_like(weights)
            for dseen in pull_out(dlogits)[::-1]:
                pull_controller, pull_heads, pull_address, memory_t, reading, writing, erase, add, h = pulls.pop()
                dread = (dread + dseen[:, -WIDTH:])[:, None]
                dkept = dmemory * memory_t
                dwriting = (dmemory @ add.swapaxes(1, 2) - dkept @ erase.swapaxes(1, 2)).swapaxes(1, 2)
                derase, dadd = -writing.swapaxes(1, 2) @ dkept, writing.swapaxes(1, 2) @ dmemory
                dweights = dbefore + np.concatenate([dread @ memory_t.swapaxes(1, 2), dwriting], axis=1)
                dfound, dbefore, draw = pull_address(dweights)
                dmemory = dmemory * (1 - writing * erase) + reading.swapaxes(1, 2) * dread + dfound
                draws = [draw.reshape(rows, -1), (derase * erase * (1 - erase))[:, 0], (dadd * (1 - add * add))[:, 0]]
                dh = pull_heads(np.concatenate(draws, axis=-1)) + dseen[:, :-WIDTH]
                dread = pull_controller(dh * (1 - h * h))[:, -WIDTH:]

        return logits, pullback


def draw(length: int, times: int, rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x (T, N, 10), and what is to come at its last steps: the vectors so many times, and an end, (K, N, 9)."""
    bits = rng.integers(0, 2, (length, rows, BITS))
    x = np.zeros((length * (times + 1) + 2, rows, BITS + 2), "f4")
    x[:length, :, :BITS], x[length, :, BITS:] = bits, (1, times / 10)
    wanted = np.zeros((length * times + 1, rows, BITS + 1), "f4")
    wanted[:-1, :, :BITS], wanted[-1, :, BITS] = np.tile(bits, (times, 1, 1)), 1
    return x, wanted


def learn(model: pyrnn.Model, longest: int, most: int, updates: int, lr: float, rng: np.random.Generator) -> None:
    """Train on sequences of up to `longest` vectors, wanted up to `most` times."""
    schedule = pyrnn.schedules.Cosine(adam := pyrnn.Adam(model, lr=lr), updates)
    for _ in tqdm(range(updates), type(model).__name__, disable=None):
        x, wanted = draw(int(rng.integers(1, longest + 1)), int(rng.integers(1, most + 1)), 16, rng)
        model.zero_grad()
        logits, pullback = model.vjp(x)
        _, dwanted = pyrnn.binary_cross_entropy(logits[-len(wanted) :], wanted)
        pullback(np.concatenate([np.zeros_like(logits[: -len(wanted)]), dwanted]))
        pyrnn.clip_grad_norm(model, 10.0)
        adam.step()
        schedule.step()


def wrong(model: pyrnn.Model, length: int, times: int, rng: np.random.Generator) -> Array:
    """How many bits are wrong in each of 100 new sequences."""
    x, wanted = draw(length, times, 100, rng)
    return np.asarray(((model(x)[-len(wanted) :] > 0) != (wanted > 0)).sum(axis=(0, 2)))


def lstm_of(parameters: int, rng: np.random.Generator) -> pyrnn.Model:
    """The largest LSTM, with a layer that reads it, of at most so many parameters."""
    hidden = max(h for h in range(1, 1000) if 4 * h * (BITS + h + 4) + (h + 1) * (BITS + 1) <= parameters)
    return pyrnn.Sequential(pyrnn.LSTM(BITS + 2, hidden), pyrnn.Linear(hidden, BITS + 1), rng=rng)


def maps(machine: Machine, length: int, times: int, rng: np.random.Generator) -> list[plots.Map]:
    """Where it writes and where it reads, step by step, in one new sequence."""
    machine(draw(length, times, 1, rng)[0])
    where = np.array(machine.weights)[:, 0]  # (T, 2, S)
    steps = [*map(str, range(1, length + 1)), "mark", *map(str, range(1, length * times + 1)), "end"]
    slots, name = [*map(str, range(machine.slots))], f"{length} vectors" + f", {times} times" * (times > 1)
    return [(where[:, k], steps, slots, f"{name}: where it {does}") for k, does in ((1, "writes"), (0, "reads"))]


@lesson(__doc__)
@count_option("--hidden", 100, "Units of the controller.")
@count_option("--updates", 2000, "Of each model that learns to copy; four times as many to copy repeatedly.")
@count_option("--longest", 20, "Vectors of a sequence in training; a quarter where they are copied repeatedly.", 4)
def main(hidden: int, updates: int, longest: int, plot: str | None, seed: int) -> None:
    drawn, short = [], longest // 4
    print("Wrong bits in a new sequence of so many vectors, wanted so many times, and sequences without any")
    for task, long, most, slots, many, lr in (("copy", longest, 1, 2 * longest, updates, 3e-3),
                                              ("repeat copy", short, 3, 4 * short, 4 * updates, 2e-3)):  # fmt: skip
        rng = np.random.default_rng(seed)
        machine = Machine(BITS + 2, BITS + 1, hidden, slots, rng=rng)
        for name, model in (("machine", machine), ("LSTM", lstm_of(machine.num_parameters, rng))):
            learn(model, long, most, many, lr, rng)
            machine.slots = 4 * long
            print(f"{task}, {name} of {model.num_parameters} parameters:", end="")
            for length in (long, 2 * long, 3 * long):
                bits = wrong(model, length, most, np.random.default_rng(seed + 1))
                print(f"  {length} x {most} {bits.mean():.2f} ({np.mean(bits == 0):.0%})", end="")
            print(flush=True)
        machine.slots = slots
        drawn += maps(machine, long, most, rng)
    if plot:
        plots.attention_maps(plot, drawn, query_label="step", key_label="slot")


if __name__ == "__main__":
    main()
