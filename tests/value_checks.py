"""Random valid calls of the public functions, each compared with tests/plain.py: results, and gradients by slopes.

CHECKS holds one function for each part of the library: check(rng) draws a call, makes it, and raises an AssertionError
that says what came out wrong. tests/test_values.py runs some of each, tests/fuzz_calls.py as many as there is time for.
"""

import copy
import fnmatch
import math

import numpy as np
import plain
from cells import CELLS, LAYERS, draw_options, keep_in_range

import pyrnn
from pyrnn.layers.dropout import dropout_mask

PROMISED = {"float32": 2e-5, "float64": 1e-9}  # of the largest value
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 33)


def near(what, actual, expected, dtype, scale=None):
    """Within what is promised of the largest value (or of `scale`)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what} has shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return
    bound = PROMISED[str(dtype)] * max(np.abs(expected).max() if scale is None else scale, 1e-3)
    error = np.abs(actual - expected).max()
    assert error <= bound, f"{what} is off by {error:.3g}, at most {bound:.3g} is promised"  # NaN is not


def a_direction(rng, array):
    """Of one number, or of all; 0 where there is NaN, which is never read."""
    if flag(rng):
        return np.where(np.isnan(array), 0, rng.standard_normal(array.shape))
    direction = np.zeros(array.shape)
    k = rng.integers(array.size)
    direction.flat[k] = not np.isnan(array.flat[k])
    return direction


def near_slope(rng, what, function, arguments, name, gradient, dout, dtype, least=0.05):
    """The gradient of sum(function * dout), along a direction of `name`; where that is a dict, of some of its arrays
    and of all at once. What is promised is of the largest gradient, but where its terms cancel, of `least`, their size.
    """
    at = arguments[name]
    single = not isinstance(at, dict)
    arrays, gradients = ({"": at}, {"": gradient}) if single else (at, gradient)
    for key, array in arrays.items():
        assert gradients[key].shape == array.shape, f"{what} {key} has shape {gradients[key].shape}"
    keys = [key for key, array in arrays.items() if array.size]
    chosen = [[key] for key in (keys if len(keys) < 4 else rng.choice(keys, 3, replace=False).tolist())]
    for group in chosen if single else [*chosen, keys]:
        directions = {key: a_direction(rng, arrays[key]) for key in group}
        tangent = plain.slope(function, arguments, name, directions[""] if single else directions)
        found = sum((gradients[key] * along).sum() for key, along in directions.items())
        largest = max([least, *(np.abs(gradients[key]).max() for key in group)])
        scale = largest * sum(np.abs(along).sum() for along in directions.values()) ** 0.5
        near(f"{what} {' '.join(group)}", found, (tangent * dout).sum(), dtype, scale)


def drawn(rng, dtype, *shape):
    """Numbers that float32 holds, as float64 for the model and in `dtype` for the library."""
    wide = rng.standard_normal(shape).astype(dtype).astype("f8")
    return wide, wide.astype(dtype)


def wide(arrays):
    return {name: array.astype("f8") for name, array in arrays.items()}


def size(rng, low=1):
    return int(rng.integers(low, 4)) if rng.random() < 0.5 else int(rng.choice(SIZES))


def flag(rng, probability=0.5):
    return bool(rng.random() < probability)


def a_dtype(rng):
    return str(rng.choice(["float32", "float64"]))


# Recurrent layers -------------------------------------------------------------------------------------------------


def a_layer(rng):
    """A layer, and what its model needs to know: kind, option."""
    kind = str(rng.choice(list(CELLS)))
    record = CELLS[kind]
    shared = {
        "num_layers": int(rng.choice([1, 1, 2, 3, 4])),
        "bidirectional": flag(rng, 0.4),
        "bias": flag(rng, 0.7),
        "batch_first": flag(rng),
        "dtype": a_dtype(rng),
        "rng": int(rng.integers(1000)),
    }
    if shared["num_layers"] > 1 and flag(rng, 0.4):
        shared["dropout"] = float(rng.choice([0.3, 0.5, 1.0]))
    inputs, hidden = size(rng), size(rng)
    option = draw_options(rng, record)
    if "weight_hr" in record.weights and hidden > 1 and flag(rng, 0.4):
        shared["proj_size"] = int(rng.integers(1, hidden))
    if "weight_ch" in record.weights:
        shared["peephole"] = flag(rng, 0.4)
    return LAYERS[kind](inputs, hidden, **option, **shared), kind, option


def a_state(rng, layer, dtype, rows):
    """Of numbers that float32 holds, by name."""
    count, widths = layer.num_layers * (1 + layer.bidirectional), layer._widths
    state = {k: drawn(rng, dtype, count, rows, w)[0] for k, w in zip(layer._cell.states, widths, strict=True)}
    keep_in_range(layer._cell, tuple(state.values()))
    return state


def check_recurrent(rng):
    layer, kind, option = a_layer(rng)
    dtype = layer.dtype.name
    steps, rows = int(rng.integers(0, 9)), int(rng.choice([0, 1, 1, 2, 3, 4, 7, 13]))
    if flag(rng, 0.05):
        steps, rows = ((int(rng.integers(20, 100)), 1), (4, 40))[rng.integers(2)]
    unbatched = rows == 1 and flag(rng)
    turned = layer.batch_first and not unbatched

    def given(array):
        """As the layer takes it, of (T, N, ...) here."""
        return array[:, 0] if unbatched else np.ascontiguousarray(array.swapaxes(0, 1)) if turned else array

    def taken(array):
        return array[:, None] if unbatched else array.swapaxes(0, 1) if turned else array

    directions, width = 1 + layer.bidirectional, layer.proj_size or layer.hidden_size
    x, _ = drawn(rng, dtype, steps, rows, layer.input_size)
    state = a_state(rng, layer, dtype, rows)
    model = {"num_layers": layer.num_layers, "bidirectional": layer.bidirectional}
    call = {}
    if flag(rng):
        lengths = model["lengths"] = rng.integers(0, steps + 1, rows)
        call["lengths"] = int(lengths[0]) if unbatched else lengths
        x = np.where(np.arange(steps)[:, None, None] < lengths[:, None], x, np.nan)
    if flag(rng, 0.3):
        mask = model["mask"] = rng.random((steps, rows)) < 0.7
        call["mask"] = given(mask)
        x = np.where(mask[..., None], x, np.nan)
    if flag(rng, 0.4):
        reset = model["reset"] = rng.random((steps, rows)) < 0.3
        call["reset"] = given(reset)

    def as_state(parts):
        """The arrays of a state as the layer takes them."""
        parts = tuple((part[:, 0] if unbatched else part).astype(dtype) for part in parts)
        return parts if len(parts) > 1 else parts[0]

    if flag(rng, 0.3):
        state = {name: np.zeros_like(part) for name, part in state.items()}
    else:
        call["state"] = as_state(state.values())
    table = None
    read = given(x.astype(dtype))
    if flag(rng, 0.3):
        table, read = drawn(rng, dtype, int(rng.integers(1, 6)), layer.input_size)
        ids = rng.integers(0, len(table), (steps, rows))
        x, call["ids"] = table[ids], given(ids)
    arguments = {"kind": kind, "option": option, "params": wide(layer.params), "x": x, "state": state, **model}

    def flat(y, final):
        parts = final if isinstance(final, tuple) else (final,)
        return np.concatenate([taken(y).ravel(), *(part.ravel() for part in parts)])

    expected = plain.recurrent(**arguments).real
    with pyrnn.threads(int(rng.choice([1, 1, 1, 2, 3]))):
        near("y and state", flat(*layer(read, **call)), expected, dtype)
        masks_rng = copy.deepcopy(layer.rng)
        if flag(rng):
            call["checkpoint_every"] = int(rng.integers(1, 6))
        (y, final), pullback = layer.vjp(read, **call)
        if layer.dropout:
            shape = (steps, rows, directions * width)
            masks = [dropout_mask(masks_rng, layer.dropout, shape, layer.dtype) for _ in range(layer.num_layers - 1)]
            # Dropout counts the steps that are there: its k-th mask is for the k-th of a row.
            lasting = np.arange(steps)[:, None] < model.get("lengths", np.full(rows, steps))
            there = lasting & model.get("mask", True)
            nth = np.cumsum(there, axis=0) - 1
            arguments["masks"] = [np.take_along_axis(mask, nth[..., None], axis=0).astype("f8") for mask in masks]
            expected = plain.recurrent(**arguments).real
        near("y and state of vjp", flat(y, final), expected, dtype)
        dy, _ = drawn(rng, dtype, steps, rows, directions * width)
        dfinal = [drawn(rng, dtype, *part.shape)[0] for part in state.values()]
        dx, dbefore = pullback(given(dy).astype(dtype), as_state(dfinal))
    dout = np.concatenate([dy.ravel(), *(d.ravel() for d in dfinal)])
    befores = dbefore if isinstance(dbefore, tuple) else (dbefore,)
    befores = [d[:, None] if unbatched else d for d in befores]
    if table is None:
        dx = taken(dx)
        assert not dx[np.isnan(x)].any(), "dx is not 0 in the padding"
    else:
        arguments["table"], x_of = table, lambda table, **rest: plain.recurrent(x=table[ids], **rest)
        del arguments["x"]
    function = plain.recurrent if table is None else x_of
    near_slope(rng, "dx", function, arguments, "x" if table is None else "table", dx, dout, dtype)
    near_slope(rng, "dstate", function, arguments, "state", dict(zip(state, befores, strict=True)), dout, dtype)
    near_slope(rng, "grads", function, arguments, "params", layer.grads, dout, dtype)


def check_stream(rng):
    """Steps, chunks, resets and the state of a stream."""
    layer, kind, option = a_layer(rng)
    if layer.bidirectional:
        return
    dtype, rows, steps = layer.dtype.name, int(rng.integers(1, 6)), int(rng.integers(1, 9))
    x, read = drawn(rng, dtype, steps, rows, layer.input_size)
    state = {name: np.zeros_like(part) for name, part in a_state(rng, layer, "float64", rows).items()}
    stream, t = layer.stream(rows), 0
    while t < steps:
        n = int(rng.integers(1, steps - t + 1))
        result = plain.recurrent(kind, option, wide(layer.params), x[t : t + n], state, num_layers=layer.num_layers)
        ends = np.cumsum([n * rows * layer._widths[0], *(part.size for part in state.values())])
        y, *parts = np.split(result.real, ends[:-1])
        state = {name: part.reshape(state[name].shape) for name, part in zip(state, parts, strict=True)}
        if n == 1 and flag(rng):
            found = stream.step(read[t])[None]
        else:
            found = stream(read[t : t + n].swapaxes(0, 1) if layer.batch_first else read[t : t + n])
            found = found.swapaxes(0, 1) if layer.batch_first else found
        near("y", found, y.reshape(n, rows, -1), dtype)
        for cleared in (np.zeros(rows, bool), rng.random(rows) < 0.3):
            if cleared.any():
                stream.reset(rows=cleared)
                for part in state.values():
                    part[:, cleared] = 0
            parts = stream.state if len(state) > 1 else (stream.state,)
            for (name, wanted), part in zip(state.items(), parts, strict=True):
                near(f"state {name}", part, wanted, dtype)
        t += n


# Attention --------------------------------------------------------------------------------------------------------


def attention_options(rng, dtype, batch, heads, queries, keys):
    """Masks, bounds and the rest of a call; attn_mask is (N, Hq, S, K) for the model and may be less for the call."""
    options = {}
    if flag(rng, 0.4):
        options["is_causal"] = True
    if flag(rng, 0.4):
        options["q_offset"] = rng.integers(-3, keys + 3, batch) if flag(rng) else int(rng.integers(-3, keys + 3))
    if flag(rng, 0.3):
        options["window"] = tuple(-1 if flag(rng, 0.3) else int(rng.integers(0, keys + 1)) for _ in range(2))
    if flag(rng, 0.3):
        options["softcap"] = float(rng.choice([0.7, 3.0]))
    if flag(rng, 0.3):
        options["kv_lengths"] = rng.integers(0, keys + 1, batch)
    if flag(rng, 0.3):
        options["scale"] = float(rng.choice([0.0, -0.5, 0.3, 2.0]))
    if flag(rng, 0.6):
        axes = [n if flag(rng, 0.7) else 1 for n in (batch, heads, queries, keys)]
        axes = axes[int(rng.integers(0, 4)) :]
        seen = rng.random(axes) < 0.7
        if flag(rng):
            options["attn_mask"] = seen
        else:
            options["attn_mask"] = np.where(seen, drawn(rng, dtype, *axes)[0], -np.inf).astype(dtype)
    return options


def model_options(options, shape):
    """The same for the model."""
    if "attn_mask" not in options:
        return options
    mask = options["attn_mask"]
    return {**options, "attn_mask": np.broadcast_to(mask if mask.dtype == bool else mask.astype("f8"), shape)}


def check_attention(rng):
    dtype = a_dtype(rng)
    batch, kv_heads, group = int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.choice([1, 1, 2, 3]))
    queries, keys = int(rng.choice([0, 1, 2, 3, 5, 9, 20])), int(rng.choice([0, 1, 2, 5, 17, 33, 40]))
    if flag(rng, 0.05):
        batch, kv_heads, group, queries, keys = 1, 1, 1, int(rng.integers(1, 6)), int(rng.choice([257, 1025, 1100]))
    features, values = size(rng), size(rng)
    heads = kv_heads * group
    options = attention_options(rng, dtype, batch, heads, queries, keys)
    arrays, reads = {}, {}
    shapes = {
        "query": (batch, heads, queries, features),
        "key": (batch, kv_heads, keys, features),
        "value": (batch, kv_heads, keys, values),
    }
    for name, shape in shapes.items():
        arrays[name], reads[name] = drawn(rng, dtype, *shape)
    arguments = {**arrays, **model_options(options, (batch, heads, queries, keys))}
    expected = plain.attention(**arguments).real
    call = {**reads, **options, "enable_gqa": True}
    with pyrnn.threads(int(rng.choice([1, 1, 1, 2, 3]))):
        near("out", pyrnn.scaled_dot_product_attention(**call), expected, dtype)
        out, pullback = pyrnn.scaled_dot_product_attention_vjp(**call)
        near("out of vjp", out, expected, dtype)
        dout, given = drawn(rng, dtype, *out.shape)
        gradients = pullback(given)
    # Of a softmax that has one winner little is left of large terms: what they are rounded by.
    terms = abs(options.get("scale", 1)) * math.prod(
        float(np.abs(a).max(initial=0)) for a in (arrays["key"], arrays["value"], dout)
    )
    for name, gradient in zip(arrays, gradients, strict=True):
        near_slope(rng, f"d{name}", plain.attention, arguments, name, gradient, dout, dtype, max(0.05, terms / 200))


def check_multihead_attention(rng):
    dtype, width, kv_heads, group = (
        a_dtype(rng),
        int(rng.integers(1, 9)),
        int(rng.integers(1, 3)),
        int(rng.integers(1, 3)),
    )
    heads, batch, queries = kv_heads * group, int(rng.integers(1, 4)), int(rng.integers(1, 7))
    embed = width * heads
    given = int(rng.integers(1, 4))  # the query alone, with a key, with a key and a value
    dims = {"kdim": size(rng), "vdim": size(rng)} if given == 3 and flag(rng) else {}
    layer = pyrnn.MultiheadAttention(
        embed,
        heads,
        flag(rng),
        num_kv_heads=kv_heads,
        batch_first=flag(rng),
        dtype=dtype,
        rng=int(rng.integers(99)),
        **dims,
    )
    for name, param in layer.params.items():
        layer.params[name] = param + 0.1 * rng.standard_normal(param.shape)
    keys = queries if given == 1 else int(rng.integers(1, 9))
    shapes = [(queries, batch, embed), (keys, batch, layer.kdim), (keys, batch, layer.vdim)][:given]
    wides, reads = zip(*(drawn(rng, dtype, *shape) for shape in shapes), strict=True)
    options = attention_options(rng, dtype, batch, heads, queries, keys)
    names = ("query", "key", "value")[:given]
    arguments = {**dict(zip(names, wides, strict=True)), "params": wide(layer.params)}

    def model(params, query, key=None, value=None):
        key = query if key is None else key
        value = key if value is None else value
        shown = model_options(options, (batch, heads, queries, keys))
        return plain.multihead_attention(params, query, key, value, heads, kv_heads, **shown)

    def turned(array):
        return array.swapaxes(0, 1) if layer.batch_first else array

    expected = model(**arguments).real
    near("out", turned(layer(*map(turned, reads), **options)), expected, dtype)
    out, pullback = layer.vjp(*map(turned, reads), **options)
    near("out of vjp", turned(out), expected, dtype)
    dout, read = drawn(rng, dtype, *expected.shape)
    gradients = pullback(turned(read))
    assert [g is None for g in gradients] == [k >= given for k in range(3)]
    for name, gradient in zip(names, gradients, strict=False):
        near_slope(rng, f"d{name}", model, arguments, name, turned(gradient), dout, dtype)
    near_slope(rng, "grads", model, arguments, "params", layer.grads, dout, dtype)
    if given == 1:
        bounds = {name: options[name] for name in ("softcap", "scale") if name in options}
        if "window" in options:
            bounds["window"] = options["window"]
        stream, seen = layer.stream(batch, **bounds), []
        for t in range(queries):
            seen.append(stream.step(reads[0][t]))
        wanted = plain.multihead_attention(
            arguments["params"], *[wides[0]] * 3, heads, kv_heads, is_causal=True, **bounds
        ).real
        near("stream", np.array(seen), wanted, dtype)


def check_additive_attention(rng):
    dtype, batch, queries, keys = a_dtype(rng), *(int(rng.integers(1, 6)) for _ in range(3))
    layer = pyrnn.AdditiveAttention(size(rng), size(rng), size(rng), dtype=dtype, rng=int(rng.integers(99)))
    lengths = rng.integers(0, keys + 1, batch)
    shapes = {
        "query": (batch, queries, layer.query_dim),
        "key": (batch, keys, layer.key_dim),
        "value": (batch, keys, size(rng)),
    }
    if flag(rng, 0.3):
        del shapes["value"]
    pairs = {name: drawn(rng, dtype, *shape) for name, shape in shapes.items()}
    arguments = {"params": wide(layer.params), **{name: pair[0] for name, pair in pairs.items()}}

    def model(params, query, key, value=None):
        return plain.additive_attention(params, query, key, key if value is None else value, lengths)

    expected = model(**arguments).real
    reads = {name: pair[1] for name, pair in pairs.items()}
    near("out", layer(**reads, kv_lengths=lengths), expected, dtype)
    out, pullback = layer.vjp(**reads, kv_lengths=lengths)
    near("out of vjp", out, expected, dtype)
    dout, read = drawn(rng, dtype, *out.shape)
    for name, gradient in zip(("query", "key", "value"), pullback(read), strict=True):
        if name in arguments:
            near_slope(rng, f"d{name}", model, arguments, name, gradient, dout, dtype)
        else:
            assert gradient is None
    near_slope(rng, "grads", model, arguments, "params", layer.grads, dout, dtype)


# Other layers -----------------------------------------------------------------------------------------------------


def check_other_layers(rng):
    dtype, steps, rows, features = a_dtype(rng), int(rng.integers(1, 6)), int(rng.integers(1, 6)), size(rng, 2)
    x, read = drawn(rng, dtype, steps, rows, features)
    lengths = rng.integers(0, steps + 1, rows)
    calls = {}
    layer = pyrnn.Linear(features, size(rng), flag(rng), dtype=dtype, rng=0)
    calls["Linear"] = layer, {}, plain.linear, {}
    layer = pyrnn.LayerNorm(features, eps=0.01, bias=flag(rng), dtype=dtype)
    for name, param in layer.params.items():
        layer.params[name] = rng.standard_normal(param.shape)
    calls["LayerNorm"] = layer, {}, plain.layer_norm, {"eps": 0.01}
    calls["LogSoftmax"] = pyrnn.LogSoftmax(dtype=dtype), {}, plain.log_softmax, {}
    calls["MaxOverTime"] = (
        pyrnn.MaxOverTime(dtype=dtype),
        {"lengths": lengths},
        plain.max_over_time,
        {"lengths": lengths},
    )
    layer, options, model, shown = calls[str(rng.choice(list(calls)))]
    arguments = {"x": x, **shown}
    if layer.params:
        arguments["params"] = wide(layer.params)
    expected = model(**arguments).real
    what = type(layer).__name__
    near(what, layer(read, **options), expected, dtype)
    y, pullback = layer.vjp(read, **options)
    near(f"{what} vjp", y, expected, dtype)
    dy, given = drawn(rng, dtype, *y.shape)
    near_slope(rng, f"{what} dx", model, arguments, "x", pullback(given), dy, dtype)
    if layer.params:
        near_slope(rng, f"{what} grads", model, arguments, "params", layer.grads, dy, dtype)


def check_embedding(rng):
    dtype, rows = a_dtype(rng), size(rng)
    layer = pyrnn.Embedding(rows, size(rng), dtype=dtype, rng=0)
    ids = rng.integers(0, rows, (int(rng.integers(0, 9)), 3))
    arguments = {"params": wide(layer.params), "ids": ids}
    y, pullback = layer.vjp(ids)
    near("y", y, plain.embedding(**arguments).real, dtype)
    dy, read = drawn(rng, dtype, *y.shape)
    pullback(read)
    near_slope(rng, "grads", plain.embedding, arguments, "params", layer.grads, dy, dtype)


# Losses and optimisers ----------------------------------------------------------------------------------------------


LOSSES = ("cross_entropy", "negative_log_likelihood", "hinge", "mean_squared_error", "binary_cross_entropy", "pinball")


def check_losses(rng):
    dtype, steps, rows, classes = a_dtype(rng), int(rng.integers(0, 7)), int(rng.integers(0, 6)), size(rng)
    batch_first = flag(rng)
    scores, read = drawn(rng, dtype, steps, rows, classes)
    counts, options = np.ones((steps, rows), bool), {}
    if flag(rng):
        lengths = options["lengths"] = rng.integers(0, steps + 1, rows)
        counts &= np.arange(steps)[:, None] < lengths
        options["batch_first"] = batch_first
    turned = (lambda a: a.swapaxes(0, 1)) if options.get("batch_first") else (lambda a: a)
    if flag(rng):
        mask = rng.random((steps, rows)) < 0.6
        counts &= mask
        options["mask"] = turned(mask)
    name = str(rng.choice(LOSSES))
    of_classes = name in LOSSES[:3]
    if name in ("mean_squared_error", "pinball"):
        targets, given = drawn(rng, dtype, steps, rows, classes)
    elif name == "binary_cross_entropy":
        targets = given = rng.integers(0, 5, scores.shape) / 4
    else:
        targets = rng.integers(0, classes, (steps, rows))
        given = targets
        if flag(rng, 0.4):
            ignored = rng.random(targets.shape) < 0.3
            given = np.where(ignored, options.setdefault("ignore_index", int(rng.choice([-1, -100, classes]))), targets)
            if "ignore_index" in options and flag(rng, 0.2):  # a class of its own
                options["ignore_index"] = int(rng.integers(classes))
                ignored = targets == options["ignore_index"]
                given = targets
            counts &= ~ignored
    own = {"reduction": str(rng.choice(["mean", "mean", "sum", "none"]))}
    if name == "pinball":
        own["quantile"] = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0], classes)
    weighted = name not in ("mean_squared_error", "pinball")
    weights = {"weight": of_classes, "pos_weight": False} if weighted else {}
    for kind in weights if name == "binary_cross_entropy" else list(weights)[:1]:
        if flag(rng, 0.4):
            own[kind] = rng.choice([0.0, 0.5, 1.0, 3.0], classes)
    if name == "cross_entropy" and flag(rng, 0.4):
        own["label_smoothing"] = float(rng.choice([0.0, 0.1, 1.0]))
    read = np.where(counts[..., None], read, np.nan).astype(dtype)
    loss, dscores = getattr(pyrnn, name)(turned(read), turned(given), **options, **own)
    arguments = {
        "scores": scores.reshape(-1, classes),
        "targets": targets.reshape(steps * rows, *targets.shape[2:]),
        "counts": counts.ravel(),
        **own,
    }
    model = getattr(plain, name)
    what = f"{name} {own}"
    expected = np.real(model(**arguments))
    if own["reduction"] == "none":
        loss = turned(loss).reshape(expected.shape)
    near(what, loss, expected, dtype)
    dscores = turned(dscores)
    assert not dscores[~counts].any(), f"{what}: what does not count has a gradient"
    gradient = dscores.reshape(-1, classes)
    near_slope(rng, f"{what} gradient", model, arguments, "scores", gradient, np.ones(expected.shape), dtype)


def check_tied_weights(rng):
    """A head that shares an embedding's table: its gradient is that of both uses."""
    dtype, words, features = a_dtype(rng), size(rng), size(rng)
    embed = pyrnn.Embedding(words, features, dtype=dtype, rng=0)
    model = pyrnn.Model(embed=embed, head=pyrnn.Linear(features, words, flag(rng), dtype=dtype, weight=embed, rng=1))
    assert set(model.params) == {"embed.weight"} | ({"head.bias"} if model.head.bias else set())
    ids = rng.integers(0, words, (int(rng.integers(1, 9)), 2))

    def through(params, ids):
        bias = {"bias": params["head.bias"]} if "head.bias" in params else {}
        return plain.linear({"weight": params["embed.weight"], **bias}, params["embed.weight"][ids])

    x, pull_embed = embed.vjp(ids)
    y, pull_head = model.head.vjp(x)
    arguments = {"params": wide(model.params), "ids": ids}
    near("y", y, through(**arguments).real, dtype)
    dy, read = drawn(rng, dtype, *y.shape)
    pull_embed(pull_head(read))
    near_slope(rng, "grads", through, arguments, "params", model.grads, dy, dtype)


def check_optimizers(rng):
    dtype = a_dtype(rng)
    model = pyrnn.Model(
        a=pyrnn.Linear(size(rng), size(rng), dtype=dtype, rng=0), b=pyrnn.Linear(2, 3, dtype="float32", rng=1)
    )
    options = {"lr": float(rng.choice([0.001, 0.1])), "weight_decay": float(rng.choice([0.0, 0.1]))}
    name = str(rng.choice(["Adam", "AdamW", "SGD", "RMSprop", "Adagrad"]))
    if name == "SGD":
        momentum = float(rng.choice([0.0, 0.9]))
        options |= {"momentum": momentum, "nesterov": bool(momentum) and flag(rng)}
    else:
        options["eps"] = float(rng.choice([1e-8, 1e-2]))
    if name == "RMSprop":
        options |= {"alpha": float(rng.choice([0.5, 0.99, 1.0])), "momentum": float(rng.choice([0.0, 0.9]))}
        if options["alpha"] == 1.0:
            options["eps"] = 1e-2
    if name in ("Adam", "AdamW"):
        options["betas"] = tuple(map(float, rng.choice([(0.9, 0.999), (0.5, 0.9), (0.0, 0.0)])))
    groups = {}
    if flag(rng, 0.4):
        groups["*bias"] = {"weight_decay": 0.0}
        if flag(rng):
            groups["*bias"] |= {"eps": 0.03} if name != "SGD" else {"lr": 0.5}
    if flag(rng, 0.4):
        groups["a.*"] = {"lr": 0.03, "weight_decay": 0.2}
    optimizer, steps = getattr(pyrnn, name)(model, **options, groups=groups), int(rng.choice([1, 2, 5, 30, 130]))
    start, history = wide(model.params), []
    for _ in range(steps):
        for _, grads in model.buffers.values():
            grads[:] = rng.standard_normal(grads.size)
        history.append(wide(model.grads))
        optimizer.step()
    formula = getattr(plain, name.lower().removesuffix("w"))
    more = {"decoupled": True} if name == "AdamW" else {}
    for key, param in model.params.items():
        own = next((group for pattern, group in groups.items() if fnmatch.fnmatchcase(key, pattern)), {})
        settings = {**options, **own}
        expected = formula(start[key], [grads[key] for grads in history], **settings, **more)
        largest = max(np.abs(expected).max(), np.abs(start[key]).max(), settings["lr"])
        near(f"{name} {settings} {key} after {steps}", param, expected, param.dtype, 10 * largest)


def check_clipping(rng):
    layer = pyrnn.Linear(size(rng), size(rng), dtype=a_dtype(rng), rng=0)
    for grad in layer.grads.values():
        grad[...] = rng.standard_normal(grad.shape)
    before, most = wide(layer.grads), float(rng.choice([0.1, 1.0, 100.0]))
    norm = math.sqrt(sum((grad**2).sum() for grad in before.values()))
    near("norm", pyrnn.clip_grad_norm(layer, most), norm, layer.dtype)
    for name, grad in layer.grads.items():
        near(name, grad, before[name] * min(1, most / (norm + 1e-6)), layer.dtype)


# Associative memories -----------------------------------------------------------------------------------------------


def compare_recall(what, result, k, expected):
    """Row k of a result with what the model gives."""
    state, converged, sweeps, flips, energies = expected
    assert result.state[k].tolist() == state.tolist(), f"{what}: state {result.state[k]}, expected {state}"
    found = (bool(result.converged[k]), int(result.sweeps[k]), int(result.flips[k]))
    assert found == (converged, sweeps, flips), f"{what}: {found}, expected {(converged, sweeps, flips)}"
    near(f"{what} energies", result.energies[k][: len(energies)], energies, "float64")
    near(
        f"{what} last energies",
        result.energies[k][len(energies) :],
        0 * result.energies[k][len(energies) :] + energies[-1],
        "float64",
    )


def check_hopfield(rng):
    n, rows, dtype = int(rng.choice([1, 2, 3, 5, 8, 12, 33, 40])), int(rng.integers(1, 5)), a_dtype(rng)
    rule, binary = str(rng.choice(["hebbian", "storkey", "pseudo_inverse"])), flag(rng, 0.3)
    if rule == "storkey":
        n = min(n, 8)
    exact = rule == "hebbian"  # else fields are rounded, and numbers drawn at random keep them away from a tie
    off = 0 if binary else -1
    threshold = rng.integers(-2, 3, n) if exact else rng.standard_normal(n)
    external = rng.integers(-2, 3, (rows, n)) if exact else rng.standard_normal((rows, n))
    net = pyrnn.Hopfield(n, states="binary" if binary else "bipolar", threshold=threshold, dtype=dtype)
    patterns = np.where(rng.random((int(rng.integers(1, 6)), n)) < 0.5, -1, 1)

    def as_states(signs):
        return np.where(signs > 0, 1, off)

    cut = int(rng.integers(0, len(patterns) + 1))
    net.store(as_states(patterns[:cut]), rule=rule)
    net.store(as_states(patterns[cut:]), rule=rule)
    weights = getattr(plain, rule)(patterns)
    if exact and flag(rng, 0.3):
        others = np.where(rng.random((int(rng.integers(1, 9)), n)) < 0.5, -1, 1)
        others = np.concatenate([others, patterns[:1]])
        net.forget(as_states(others))
        weights = weights - plain.hebbian(others)
    near("weights", net.weights, weights, "float64" if exact else dtype)
    probe = as_states(rng.integers(0, 2, (rows, n)) * 2 - 1)
    order = None if flag(rng, 0.3) else rng.permutation(n)
    held = net.weights.astype("f8")
    given = external if flag(rng) else None
    result = net.recall(
        probe,
        order=order,
        update="sync" if order is None else "async",
        external_input=given,
        record=True,
        max_sweeps=20,
    )
    for k in range(rows):
        inputs = np.zeros(n) if given is None else given[k]

        def energy(state, inputs=inputs):
            return plain.hopfield_energy(held, state, threshold, inputs)

        near("energy", net.energy(probe[k], None if given is None else inputs), energy(probe[k]), "float64")
        expected = plain.recall(probe[k], energy, off, order=order, max_sweeps=20)
        compare_recall(f"{rule}, n = {n}", result, k, expected)
        still = plain.recall(probe[k], energy, off, max_sweeps=1)[1]
        assert net.is_stable(probe[k], None if given is None else inputs) == still


def check_dense_hopfield(rng):
    n, rows = int(rng.choice([1, 2, 3, 5, 8, 9])), int(rng.integers(1, 5))
    patterns = np.where(rng.random((int(rng.integers(1, 40)), n)) < 0.5, -1, 1)
    degree, exponential = int(rng.integers(1, 6)), flag(rng)
    form = {"energy": "exponential"} if exponential else {"degree": degree}
    net = pyrnn.DenseHopfield(patterns, **form)
    function = math.exp if exponential else (lambda z: z**degree)
    external = rng.standard_normal((rows, n))  # keeps sums away from ties
    probe = np.where(rng.random((rows, n)) < 0.5, -1, 1)
    order = None if flag(rng, 0.3) else rng.permutation(n)
    update = "sync" if order is None else "async"
    result = net.recall(probe, order=order, update=update, external_input=external, record=True, max_sweeps=20)
    for k in range(rows):

        def energy(state, k=k):
            return plain.dense_energy(patterns, state, function, external[k])

        near("energy", net.energy(probe[k], external[k]), energy(probe[k]), "float64")
        expected = plain.recall(probe[k], energy, -1, order=order, max_sweeps=20)
        compare_recall(f"{form}, n = {n}", result, k, expected)


def check_modern_hopfield(rng):
    dtype, d, rows = a_dtype(rng), size(rng), int(rng.integers(1, 5))
    patterns, read = drawn(rng, dtype, int(rng.integers(1, 40)), d)
    state, probe = drawn(rng, dtype, rows, d)
    beta = float(rng.choice([0.25, 1.0, 4.0]))
    net = pyrnn.ModernHopfield(read, beta=beta, dtype=dtype)
    arguments = {"state": state, "patterns": patterns, "beta": beta, "max_steps": int(rng.integers(0, 4)), "tol": 0.0}
    steps = {name: arguments[name] for name in ("max_steps", "tol")}
    expected = plain.retrieve(**arguments).real
    # Each step may stretch by so much what the one before was rounded by.
    largest, count = np.abs(patterns).max(), max(1, arguments["max_steps"])
    stretch = max(1.0, beta * largest**2)
    scale = largest * stretch ** (count - 1)
    near("state", net.retrieve(probe, **steps), expected, dtype, scale)
    result, pullback = net.vjp(probe, **steps)
    near("state of vjp", result, expected, dtype, scale)
    near("energy", net.energy(probe), [plain.modern_energy(s, patterns, beta) for s in state], "float64")
    dout, given = drawn(rng, dtype, rows, d)
    for name, gradient in zip(("state", "patterns"), pullback(given), strict=True):
        near_slope(rng, f"d{name}", plain.retrieve, arguments, name, gradient, dout, dtype, stretch**count)


CHECKS = [check for name, check in dict(globals()).items() if name.startswith("check_")]
