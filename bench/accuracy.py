"""What fewer bits cost a character model: training with products of bfloat16, and float32's weights in fewer bits.

The model of `pyrnn train --hidden 512 --lr 0.002` is trained twice from the same weights on the same batches: with
products of float32, and with factors rounded to bfloat16. Then the first of the two is quantized. Bits per character
are those of the held-out last tenth.

    python -m bench.accuracy --data tinyshakespeare.txt [--steps 2000] [--hidden 512]
"""

from __future__ import annotations

import argparse

from pyrnn.app.charmodel import CharModel, bits_per_character
from pyrnn.text.corpus import Batches, Corpus, read_all

from .training import BATCH, STEPS, Ours

TOLD = 250  # updates


def rounded(model: CharModel) -> CharModel:
    """The same model with products of bfloat16."""
    twin = CharModel(model.vocabulary, **model.sizes)
    for name in ("rnn", "head"):
        layer = getattr(model, name)
        setattr(twin, name, type(layer)(**layer.config() | {"precision": "bfloat16"}))
    twin.load_state_dict(model.state_dict())
    return twin


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a UTF-8 text")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2000, help="updates of each")
    options = parser.parse_args(arguments)
    corpus = Corpus(read_all([options.data]), [options.data])
    batches = Batches(corpus.train, BATCH, STEPS)
    plain = Ours(CharModel(corpus.vocabulary, hidden=options.hidden, rng=0), batches)
    both = plain, Ours(rounded(plain.model), batches)
    print(f"{'updates':>8}{'float32':>10}{'bfloat16':>10}{'apart':>8}   (products in training)")
    for count in range(1, options.steps + 1):
        for side in both:
            side.step()
        if count % TOLD == 0 or count == options.steps:
            first, second = (side.bits(corpus.valid) for side in both)
            print(f"{count:8}{first:10.4f}{second:10.4f}{second / first - 1:+8.2%}", flush=True)
    print("float32's weights in fewer bits, text read from end to end:")
    exact = bits_per_character(plain.model, corpus.valid)
    print(f"{'float32':>10}{exact:10.5f}")
    for weights in ("bfloat16", "int8"):
        bits = bits_per_character(plain.model.quantize(weights), corpus.valid)
        print(f"{weights:>10}{bits:10.5f}{bits - exact:+10.5f}", flush=True)


if __name__ == "__main__":
    main()
