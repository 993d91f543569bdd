"""Equal bits from any memory layout of the inputs, for every public layer and function that is given arrays.

(test_same_bits.py and test_parity.py look more closely at the recurrent layers and at the kernels.)
"""

import inspect
import types

import numpy as np
import pytest
from cells import DTYPES, LAYERS, LAYOUTS, assert_same_bits, flat, laid_out

import pyrnn
from pyrnn import baselines, data, decoding, metrics, sound

T, N, F, WIDE = 37, 3, 21, 300  # enough numbers for sums whose order matters
OTHERS = [name for name in LAYOUTS if name != "plain"]


class Given:
    """Arrays for one case, the same at every run but for how they lie."""

    def __init__(self, layout, dtype):
        self.layout, self.dtype, self.rng = layout, dtype, np.random.default_rng(1)

    def __call__(self, *shape):
        return laid_out(self.layout, self.rng.standard_normal(shape).astype(self.dtype))

    def ids(self, high, *shape):
        return laid_out(self.layout, self.rng.integers(0, high, shape))

    def marks(self, *shape):
        return laid_out(self.layout, self.rng.random(shape) < 0.7)


def both_ways(given, layer, *inputs, more=(), **options):
    """What a call gives, what vjp gives, and the gradients."""
    called = layer(*inputs, **options)
    result, pullback = layer.vjp(*inputs, **options)
    first = next(flat(result))
    gradients = pullback(given(*first.shape), *(given(*shape) for shape in more))
    return called, result, gradients, list(getattr(layer, "grads", {}).values())


def attention(g):
    q, k, v = g(N, 4, T, 8), g(N, 2, T, 8), g(N, 2, T, 5)
    options = {"enable_gqa": True, "kv_lengths": g.ids(T, N), "q_offset": g.ids(9, N)}
    results = []
    for mask in (g.marks(T, T), g(T, T)):
        out, pullback = pyrnn.scaled_dot_product_attention_vjp(q, k, v, mask, **options)
        called = pyrnn.scaled_dot_product_attention(q, k, v, mask, **options)
        weights = pyrnn.attention_weights(q, k, attn_mask=mask, **options)
        results.append((called, out, pullback(g(N, 4, T, 5)), weights))
    return results


def recurrent(layer):
    def case(g):
        net = layer(F, 13, 2, dtype=g.dtype, rng=0)
        state = tuple(g(2, N, 13) for _ in net._cell.states)
        state = state if len(state) > 1 else state[0]
        walk = {"lengths": g.ids(T, N), "reset": g.marks(T, N)}
        stream = net.stream(N, state)
        return both_ways(g, net, g(T, N, F), state, **walk), stream.step(g(N, F)), stream(g(T, N, F))

    return case


def convolved(g, groups):
    layer = pyrnn.Conv1d(F, 2 * F, 4, 2, dilation=2, groups=groups, dtype=g.dtype, rng=0)
    stream = layer.stream(N)
    walked = both_ways(g, layer, g(T, N, F), lengths=g.ids(T, N))
    return walked, stream(g(T, N, F)), stream.step(g(N, F)), stream.state[0]


def activations(g):
    kinds = (pyrnn.ReLU, pyrnn.LeakyReLU, pyrnn.ELU, pyrnn.GELU, pyrnn.SiLU, pyrnn.Tanh, pyrnn.Sigmoid, pyrnn.Softmax)
    return [both_ways(g, kind(dtype=g.dtype), g(T, N, F)) for kind in kinds]


def begun(g):
    net = pyrnn.LearnedState(pyrnn.LSTM(F, 13, 2, dtype=g.dtype, rng=0))
    net.load_state_dict(net.state_dict() | {"start.h": g(2, 13), "start.c": g(2, 13)})
    stream = net.stream(N)
    return both_ways(g, net, g(T, N, F), lengths=g.ids(T, N)), stream.step(g(N, F)), stream(g(T, N, F))


def multihead(g):
    layer = pyrnn.MultiheadAttention(F, 3, dtype=g.dtype, rng=0)
    stream = layer.stream(N)
    return (
        both_ways(g, layer, g(T, N, F), g(T, N, F), is_causal=True),
        layer.attention_weights(g(T, N, F)),
        (stream.step(g(N, F)), stream(g(T, N, F))),
    )


def losses(g):
    ids = {"lengths": g.ids(T, N), "mask": g.marks(T, N)}
    for loss in (pyrnn.cross_entropy, pyrnn.hinge, pyrnn.negative_log_likelihood):
        yield loss(g(T, N, F), g.ids(F, T, N))
        yield loss(g(T, N, F), g.ids(F, T, N), **ids)
    yield pyrnn.mean_squared_error(g(T, N, F), g(T, N, F))
    yield pyrnn.mean_squared_error(g(T, N, F), g(T, N, F), **ids)
    yield pyrnn.pinball(g(T, N, F), g(T, N, F), laid_out(g.layout, g.rng.random(F)))
    yield pyrnn.pinball(g(T, N, F), g(T, N, F), 0.3, **ids)
    yield pyrnn.binary_cross_entropy(g(T, N, F), g.marks(T, N, F))
    yield pyrnn.binary_cross_entropy(g(T, N, F), g.marks(T, N, F), **ids)


def encoder(g):
    layer = pyrnn.TransformerEncoderLayer(F, 3, 30, 0.0, dtype=g.dtype, rng=0)
    stream = layer.stream(N)
    walked = both_ways(g, layer, g(T, N, F), g.ids(T, N), attn_mask=g.marks(T, T))
    return walked, stream.step(g(N, F)), stream(g(T, N, F))


def aligned(g):
    lengths, targets = 10 + g.ids(T - 9, N), 1 + g.ids(F - 1, N, 5)
    more = {"lengths": lengths, "target_lengths": g.ids(6, N)}
    yield pyrnn.ctc(g(T, N, F), targets, **more)
    yield pyrnn.ctc(g(N, T, F), targets, batch_first=True, **more)
    yield decoding.ctc_align(g(T, N, F), targets, **more)
    yield decoding.ctc_greedy(g(T, N, F), lengths=lengths)
    yield [beam[0] for beam in decoding.ctc_beam_search(g(T, N, F), lengths=lengths, beam_width=3)]


def tagged(g):
    crf, lengths = pyrnn.CRF(F, dtype=g.dtype, rng=0), g.ids(T, N)
    loss, pullback = crf.vjp(g(T, N, F), g.ids(F, T, N), lengths)
    yield loss, pullback(), *crf.grads.values()
    yield crf.decode(g(T, N, F), lengths), crf.marginals(g(T, N, F), lengths)


def modern(g):
    net = pyrnn.ModernHopfield(g(T, WIDE), dtype=g.dtype)
    result, pullback = net.vjp(g(N, WIDE), max_steps=3)
    energy = net.energy(g(N, WIDE))
    return net.patterns, net.retrieve(g(N, WIDE), max_steps=3), result, pullback(g(N, WIDE)), energy


def classical(make):
    def case(g):
        patterns = laid_out(g.layout, np.where(g.rng.random((4, F)) < 0.5, 1, -1))
        net = make(patterns)
        probe = laid_out(g.layout, np.where(g.rng.random((N, F)) < 0.5, 1, -1))
        external = laid_out(g.layout, g.rng.standard_normal((N, F)))
        recalled = net.recall(probe, rng=0, external_input=external, record=True)
        return recalled.state, recalled.energies, net.energy(probe, external)

    return case


def stored(patterns):
    net = pyrnn.Hopfield(F, threshold=laid_out("every_other", np.linspace(-1, 1, F)))
    net.store(patterns, "storkey")
    return net


def decoded(g):
    yield decoding.choose(g(N, F), 0.7, rng=0)
    table = g(F, F)  # logits that only the last token decides
    step = lambda state, tokens: (table[tokens], state + g(1, N * 2)[:, : len(tokens)])  # noqa: E731
    state = np.zeros((1, N), g.dtype)
    yield from decoding.greedy(step, state, g.ids(F, N), 0, 5)
    yield from decoding.sample(step, state, g.ids(F, N), 0, 5, rng=0)
    yield decoding.scheduled_inputs(step, state, g.ids(F, T, N), 0.5, rng=0)
    scores = g.rng.standard_normal((WIDE, WIDE)).astype(g.dtype)
    wide = lambda state, tokens: (laid_out(g.layout, scores[tokens]), state)  # noqa: E731
    yield from decoding.beam_search(wide, None, g.ids(F, N), 0, 4, width=4)


def optimisers(g):
    for make in (pyrnn.SGD, pyrnn.RMSprop, pyrnn.Adam, pyrnn.AdamW, pyrnn.Adagrad):
        layer = pyrnn.Linear(F, 7, dtype=g.dtype, rng=0)
        layer.params["weight"] = g(7, F)
        layer.grads["weight"] = g(7, F)
        norm = pyrnn.clip_grad_norm(layer, 1.0)
        pyrnn.clip_grad_value(layer, 0.1)
        make(layer, lr=1e-2).step()
        yield norm, layer.params["weight"].copy()


def cut(g):
    layer = pyrnn.GRU(F, 8, dtype=g.dtype, rng=0)
    for _, y, pullback in pyrnn.truncated_bptt(layer, g(T, N, F), 10, 15, lengths=g.ids(T, N)):
        pullback(g(*y.shape))
        yield y
    yield from layer.grads.values()


def fitted(g):
    layer = pyrnn.GRU(F, 8, dtype=g.dtype, rng=0)
    history = pyrnn.fit(layer, [g(t, F) for t in (5, 2, 7)], [g(t, 8) for t in (5, 2, 7)], pyrnn.mean_squared_error,
                        valid=([g(4, F)], [g(4, 8)]), epochs=2, batch_size=2, rng=0)  # fmt: skip
    return history.train, history.valid, list(layer.params.values())


def flow(g):
    found = pyrnn.gradient_flow(pyrnn.RNN(F, 8, dtype=g.dtype, rng=0), g(9, N, F), dy=g(9, N, 8), dstate=g(1, N, 8))
    return found.norms, found.singular_values


def series(g):
    values = g(60)
    yield from (baselines.persistence(values, 2), baselines.seasonal(values, 2, 7))
    yield baselines.linear(values, 2, 40, g(60, 2))
    yield metrics.best_f1(g(T), g.marks(T)), metrics.f1(g.marks(T), g.marks(T))
    yield metrics.confusions(g.ids(3, T), g.ids(3, T), range(3))
    yield data.pad([g(5, F), g(2, F)]), data.windows(g(T, F), 5, 2), data.windows(g(T, F), 5, batch_first=True)
    scaler = data.Scaler(g(T, N, F))
    yield scaler.mean, scaler.scale, scaler(g(N, F)), scaler.back(g(N, F))
    yield sound.log_mel(g(T * N), 8000)


def model(make, *inputs, more=(), **options):
    return lambda g: both_ways(
        g, make(dtype=g.dtype, rng=0), *(i(g) for i in inputs), more=more, **{k: o(g) for k, o in options.items()}
    )


def plain_layer(make, *shape):
    return lambda g: both_ways(g, make(g.dtype), g(*(shape or (T, N, F))))


def tokens(*shape):
    return lambda g: g.ids(F, *shape)


def draw(*shape):
    return lambda g: g(*shape)


def trained(make, *inputs, **options):
    def case(g):
        net = make(g.dtype)
        logits, pullback = net.vjp(*(i(g) for i in inputs), **{k: o(g) for k, o in options.items()})
        return logits, pullback(g(*logits.shape)), list(net.grads.values())

    return case


def populated(g):
    many = pyrnn.Population(
        pyrnn.Sequential(pyrnn.LSTM(F, 13, dtype=g.dtype), pyrnn.Linear(13, 3, dtype=g.dtype)), 2, rng=0
    )
    alone = pyrnn.Population(pyrnn.GRU(F, 13, dtype=g.dtype), 2, rng=0)
    stream = many.stream(N)
    return (
        both_ways(g, many, g(2, T, N, F), lengths=g.ids(T, 2, N)),
        both_ways(g, alone, g(2, T, N, F), g(2, 1, N, 13), reset=g.marks(2, T, N)),
        (stream.step(g(2, N, F)), stream(g(2, T, N, F))),
        many.loss(pyrnn.mean_squared_error, g(2, T, N, 3), g(2, T, N, 3)),
    )


def shared(g):
    def loss_of(model, part):
        y, pullback = model.vjp(part["x"])
        loss, dy = pyrnn.mean_squared_error(y, part["target"])
        pullback(dy)
        return loss, len(y)

    layer = pyrnn.Linear(F, 7, dtype=g.dtype, rng=0)
    loss = pyrnn.parallel.DataParallel(layer, shards=3).step(loss_of, {"x": g(T, F), "target": g(T, 7)})
    return loss, list(layer.grads.values())


# What is tried under which public names.
CASES = {
    ("parallel", "DataParallel"): shared,
    ("Population",): populated,
    **{(layer.__name__,): recurrent(layer) for layer in LAYERS.values()},
    ("Linear",): plain_layer(lambda dtype: pyrnn.Linear(F, 7, dtype=dtype, rng=0)),
    ("Linear", "one row"): plain_layer(lambda dtype: pyrnn.Linear(F, 7, dtype=dtype, rng=0), F),
    ("Embedding",): model(lambda **o: pyrnn.Embedding(F, 5, **o), tokens(T, N)),
    ("LayerNorm",): plain_layer(lambda dtype: pyrnn.LayerNorm(F, dtype=dtype)),
    ("Dropout",): lambda g: pyrnn.Dropout(0.5, dtype=g.dtype, rng=0).vjp(g(T, N, F))[1](g(T, N, F)),
    ("LogSoftmax",): plain_layer(lambda dtype: pyrnn.LogSoftmax(dtype=dtype)),
    ("Conv1d",): lambda g: convolved(g, 1),
    ("Conv1d", "few channels"): lambda g: convolved(g, F),
    ("BatchNorm1d",): model(lambda rng, **o: pyrnn.BatchNorm1d(F, **o), draw(T, N, F), lengths=lambda g: g.ids(T, N)),
    ("ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Tanh", "Sigmoid", "Softmax"): activations,
    ("PReLU",): plain_layer(lambda dtype: pyrnn.PReLU(F, dtype=dtype)),
    ("MaxPool1d",): plain_layer(lambda dtype: pyrnn.MaxPool1d(3, 2, dtype=dtype)),
    ("MeanOverTime",): plain_layer(lambda dtype: pyrnn.MeanOverTime(dtype=dtype)),
    ("MaxOverTime",): plain_layer(lambda dtype: pyrnn.MaxOverTime(dtype=dtype)),
    ("LastStep",): plain_layer(lambda dtype: pyrnn.LastStep(dtype=dtype)),
    ("PositionalEncoding",): plain_layer(lambda dtype: pyrnn.PositionalEncoding(F, dtype=dtype)),
    ("MultiheadAttention",): multihead,
    ("TransformerEncoderLayer",): encoder,
    ("AdditiveAttention",): model(
        lambda **o: pyrnn.AdditiveAttention(F, 9, 12, **o), draw(N, 5, F), draw(N, T, 9), draw(N, T, 8),
        kv_lengths=lambda g: g.ids(T, N),
    ),
    ("scaled_dot_product_attention", "scaled_dot_product_attention_vjp", "attention_weights"): attention,
    ("Jordan",): model(lambda **o: pyrnn.Jordan(F, 9, 4, **o), draw(T, N, F), draw(N, 4), more=[(N, 4)]),
    ("ODERNN",): model(
        lambda **o: pyrnn.ODERNN(F, 9, **o), draw(7, N, F),
        lambda g: laid_out(g.layout, np.cumsum(g.rng.random((7, N)), axis=0)), draw(1, N, 9), more=[(1, N, 9)],
    ),
    ("Decoder",): trained(
        lambda dtype: pyrnn.Decoder(F, 5, 8, vector_size=6, memory_size=4, dtype=dtype, rng=0),
        tokens(T, N), draw(N, 6), draw(T, N, 4), lengths=lambda g: g.ids(T, N), memory_lengths=lambda g: g.ids(T, N),
    ),
    ("EncoderDecoder",): trained(
        lambda dtype: pyrnn.EncoderDecoder(F, F, 5, 8, dtype=dtype, rng=0), tokens(T, N), tokens(9, N)
    ),
    ("Sequential", "Model"): plain_layer(
        lambda dtype: pyrnn.Sequential(
            a=pyrnn.Linear(F, 8, dtype=dtype, rng=0), b=pyrnn.GRU(8, 9, dtype=dtype, rng=1),
            c=pyrnn.LayerNorm(9, dtype=dtype),
        )
    ),
    ("Graph", "Merge"): plain_layer(
        lambda dtype: pyrnn.Graph(
            {"a": ["x"], "b": ["a", "x"], "c": ["b"], "d": ["c", "a"]}, rng=0,
            a=pyrnn.GRU(F, 9, dtype=dtype), b=pyrnn.Merge("concatenate", dtype=dtype),
            c=pyrnn.Linear(F + 9, 9, dtype=dtype), d=pyrnn.Merge("multiply", dtype=dtype),
        )
    ),
    ("LearnedState",): begun,
    ("from_torch",): lambda g: list(pyrnn.from_torch({"weight": g(7, F), "bias": g(7)}).params.values()),
    ("Hopfield",): classical(stored),
    ("DenseHopfield",): classical(pyrnn.DenseHopfield),
    ("ModernHopfield",): modern,
    (
        "cross_entropy", "hinge", "negative_log_likelihood", "mean_squared_error", "pinball", "binary_cross_entropy"
    ): losses,
    ("ctc", "ctc_align", "ctc_beam_search", "ctc_greedy"): aligned,
    ("CRF",): tagged,
    ("SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "clip_grad_norm", "clip_grad_value"): optimisers,
    ("truncated_bptt",): cut,
    ("fit",): fitted,
    ("gradient_flow", "GradientFlow"): flow,
    ("choose", "greedy", "sample", "scheduled_inputs", "beam_search"): decoded,
    (
        "persistence", "seasonal", "linear", "ahead", "f1", "best_f1", "confusions", "pad", "windows", "Scaler",
        "log_mel",
    ): series,
}  # fmt: skip
WITHOUT_ARRAYS = {
    "CapacityWarning", "get_num_threads", "set_num_threads", "threads",
    "minibatches", "held_out", "families", "mel_bands", "from_json", "from_keras", "from_onnx", "load", "read_weights",
    "save", "to_onnx", "to_torch", "fold_batch_norms", "load_names", "load_passengers", "make_adding", "make_copying",
    "fetch",
}  # fmt: skip


def bits(results):
    """Arrays and numbers of any nesting as arrays."""
    if isinstance(results, types.GeneratorType):
        results = list(results)
    arrays = [np.asarray(bits(r) if isinstance(r, types.GeneratorType) else r) for r in flat(results) if r is not None]
    return [np.where(np.isnan(a), -1, a) for a in arrays]  # NaN where a forecast has no past


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("names", CASES, ids=lambda names: " ".join(names[:2]))
def test_any_layout(names, dtype):
    expected = bits(CASES[names](Given("plain", dtype)))
    assert expected
    for layout in OTHERS:
        found = bits(CASES[names](Given(layout, dtype)))
        try:
            assert_same_bits(found, expected)
        except AssertionError as error:
            raise AssertionError(f"{layout}: {error}") from None


def test_every_public_function_is_tried():
    public = [(name, getattr(pyrnn, name)) for name in pyrnn.__all__]
    for module in (decoding, baselines, metrics, data, sound):
        own = inspect.getmembers(module, inspect.isfunction)
        public += [(n, f) for n, f in own if not n.startswith("_") and f.__module__.startswith(module.__name__)]
    public = {name for name, thing in public if callable(thing) and not inspect.ismodule(thing)}
    tried = {name for names in CASES for name in names}
    assert not public - tried - WITHOUT_ARRAYS
