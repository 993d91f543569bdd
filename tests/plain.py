"""What the library computes, written down a second time as plainly as can be: loops over rows, steps, queries, units.

It shares no line with the library and its reference. Numbers are float64. There are no gradients here: `slope` takes
the derivative of a model along a direction, exact to rounding, from a step so small that it is lost in the real part
and alone in the imaginary one (Squire & Trapp 1998). So the models take complex numbers.
"""

import itertools
import math

import numpy as np

TINY = 1e-30


def slope(function, arguments, name, direction):
    """d function(**arguments) / d arguments[name] along a direction; of a dict, along directions of some arrays."""
    at = arguments[name]
    if isinstance(at, dict):
        moved = {**at, **{key: at[key] + TINY * 1j * along for key, along in direction.items()}}
    else:
        moved = at + TINY * 1j * direction
    return np.imag(function(**{**arguments, name: moved})) / TINY


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.where(a.real > TINY, a, 0)  # products of two small steps leave less than that, where a is 0


def hard(slope):
    return lambda a: np.where(a.real * slope < -0.5, 0, np.where(a.real * slope > 0.5, 1, a * slope + 0.5))


ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": relu,
    "sigmoid": sigmoid,
    "softsign": lambda a: a / (1 + np.where(a.real < 0, -a, a)),
    "identity": lambda a: a,
    "hard_sigmoid": hard(1 / 5),
    "hard_sigmoid_6": hard(1 / 6),
}


# Recurrent layers -------------------------------------------------------------------------------------------------


def of_both(w, x, h):
    return w["weight_ih"] @ x + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]


def rnn_step(w, x, before, nonlinearity):
    return (ACTIVATIONS[nonlinearity](of_both(w, x, before[0])),)


def lstm_step(w, x, before, activation, gate_activation):
    h, c = before
    act, gate = ACTIVATIONS[activation], ACTIVATIONS[gate_activation]
    i, f, g, o = np.split(of_both(w, x, h), 4)
    look_i, look_f, look_o = np.split(w.get("weight_ch", np.zeros(3 * len(c))), 3)
    c_next = gate(f + look_f * c) * c + gate(i + look_i * c) * act(g)
    h_next = gate(o + look_o * c_next) * act(c_next)
    return w["weight_hr"] @ h_next if "weight_hr" in w else h_next, c_next


def gru_step(w, x, before, reset_after, activation, gate_activation):
    (h,) = before
    act, gate = ACTIVATIONS[activation], ACTIVATIONS[gate_activation]
    from_x = np.split(w["weight_ih"] @ x + w["bias_ih"], 3)
    of_h, shifts = np.split(w["weight_hh"], 3), np.split(w["bias_hh"], 3)
    r = gate(from_x[0] + of_h[0] @ h + shifts[0])
    z = gate(from_x[1] + of_h[1] @ h + shifts[1])
    candidate = r * (of_h[2] @ h + shifts[2]) if reset_after else of_h[2] @ (r * h) + shifts[2]
    return ((1 - z) * act(from_x[2] + candidate) + z * h,)


def indrnn_step(w, x, before, nonlinearity):
    return (ACTIVATIONS[nonlinearity](w["weight_ih"] @ x + w["bias_ih"] + w["weight_hh"] * before[0]),)


def mingru_step(w, x, before):
    z, n = np.split(w["weight_ih"] @ x + w["bias_ih"], 2)
    return (before[0] + sigmoid(z) * (n - before[0]),)


def minlstm_step(w, x, before):
    i, f, n = np.split(w["weight_ih"] @ x + w["bias_ih"], 3)
    i, f = sigmoid(i), sigmoid(f)
    return ((f * before[0] + i * n) / (f + i),)


def slstm_step(w, x, before):
    h, c, n, m = before
    a_i, a_f, g, o = np.split(of_both(w, x, h), 4)
    c_next, n_next, m_next = np.zeros_like(c), np.zeros_like(n), np.zeros_like(m)
    for k in range(len(c)):
        lasting = np.log(sigmoid(a_f[k])) + m[k]
        m_next[k] = lasting if n[k].real != 0 and lasting.real > a_i[k].real else a_i[k]
        kept = np.exp(lasting - m_next[k]) if n[k].real != 0 else 0
        c_next[k] = kept * c[k] + np.exp(a_i[k] - m_next[k]) * np.tanh(g[k])
        n_next[k] = kept * n[k] + np.exp(a_i[k] - m_next[k])
    return sigmoid(o) * c_next / n_next, c_next, n_next, m_next


def normalised(v, eps):
    centred = v - sum(v) / len(v)
    return centred / np.sqrt(sum(centred * centred) / len(v) + eps)


def layernormlstm_step(w, x, before, eps):
    h, c = before
    of_x, of_h = normalised(w["weight_ih"] @ x, eps), normalised(w["weight_hh"] @ h, eps)
    i, f, g, o = np.split(w["norm_ih"] * of_x + w["norm_hh"] * of_h + w["bias_ih"], 4)
    c_next = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(w["norm_c"] * normalised(c_next, eps) + w["bias_c"]), c_next


STEPS = {name.removesuffix("_step"): step for name, step in dict(globals()).items() if name.endswith("_step")}


def weights_of(params, suffix, gates):
    w = {name.removesuffix(suffix): array for name, array in params.items() if name.endswith(suffix)}
    for bias in ("bias_ih", "bias_hh"):
        w.setdefault(bias, np.zeros(gates))
    return w


def recurrent(
    kind,
    option,
    params,
    x,
    state,
    *,
    num_layers=1,
    bidirectional=False,
    lengths=None,
    reset=None,
    mask=None,
    masks=None,
):  # fmt: skip
    """x (T, N, I), state: a dict of (L*D, N, ...), as the layer takes them; masks: of the dropout behind each layer but
    the last. All of the result, y and the state, in one flat array. A step that `mask` hides is left out."""
    steps, rows = x.shape[:2]
    lengths = [steps] * rows if lengths is None else lengths
    directions = ["", "_reverse"][: 1 + bidirectional]
    last = [part.astype(complex) for part in state.values()]
    for layer in range(num_layers):
        ys = []
        for d, name in enumerate(directions):
            suffix, k = f"_l{layer}{name}", layer * len(directions) + d
            w = weights_of(params, suffix, len(params[f"weight_ih{suffix}"]))
            y = np.zeros((steps, rows, last[0].shape[2]), complex)
            for n in range(rows):
                now = [part[k, n] for part in last]
                order = [t for t in range(lengths[n]) if mask is None or mask[t, n]]
                begins = None  # whether the step before the present one, in the order of walking, begins a sequence
                for t in reversed(order) if name else order:
                    if reset is not None and (begins if name else reset[t, n]):
                        now = [np.zeros_like(part) for part in now]
                    begins = reset is not None and reset[t, n]
                    now = STEPS[kind](w, x[t, n], now, **option)
                    y[t, n] = now[0]
                for part, value in zip(last, now, strict=True):
                    part[k, n] = value
            ys.append(y)
        x = np.concatenate(ys, axis=2)
        if masks is not None and layer < num_layers - 1:
            x = x * masks[layer]
    return np.concatenate([x.ravel(), *(part.ravel() for part in last)])


# Attention --------------------------------------------------------------------------------------------------------


def sees(i, j, *, is_causal, q_offset, window, kv_length):
    """Whether bounds let query i see key j."""
    at, (left, right) = i + q_offset, window or (-1, -1)
    return (
        (not is_causal or j <= at)
        and (left < 0 or j >= at - left)
        and (right < 0 or j <= at + right)
        and (kv_length is None or j < kv_length)
    )


def attention(
    query, key, value, attn_mask=None, is_causal=False, scale=None, *, q_offset=0, window=None, softcap=0.0,
    kv_lengths=None,
):  # fmt: skip
    """query (N, Hq, S, E), key (N, Hk, K, E), value (N, Hk, K, Ev), attn_mask (N, Hq, S, K), others for each of N."""
    batch, heads, queries, features = query.shape
    keys, group = key.shape[2], heads // key.shape[1]
    scale = features**-0.5 if scale is None else scale
    offsets = np.broadcast_to(q_offset, batch).tolist()
    ends = [None] * batch if kv_lengths is None else np.broadcast_to(kv_lengths, batch).tolist()
    out = np.zeros((batch, heads, queries, value.shape[3]), complex)
    for n, head, i in itertools.product(range(batch), range(heads), range(queries)):
        bounds = {"is_causal": is_causal, "q_offset": offsets[n], "window": window, "kv_length": ends[n]}
        seen = [j for j in range(keys) if sees(i, j, **bounds)]
        if attn_mask is not None:
            mask = attn_mask[n, head, i]
            seen = [j for j in seen if (mask[j] if mask.dtype == bool else mask[j] != -np.inf)]
        if not seen:
            continue
        scores = scale * (key[n, head // group, seen] @ query[n, head, i])
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        if attn_mask is not None and attn_mask.dtype != bool:
            scores = scores + mask[seen]
        weights = np.exp(scores - scores.real.max())
        out[n, head, i] = weights @ value[n, head // group, seen] / weights.sum()
    return out


def multihead_attention(params, query, key, value, heads, kv_heads, **options):
    """query (S, N, E), key and value (K, N, ...) -> (S, N, E)."""
    width = query.shape[2] // heads
    ends = np.cumsum([heads * width, kv_heads * width, kv_heads * width])
    if "in_proj_weight" in params:
        maps = np.split(params["in_proj_weight"], ends[:2])
    else:
        maps = [params[f"{name}_proj_weight"] for name in "qkv"]
    shifts = np.split(params.get("in_proj_bias", np.zeros(ends[2])), ends[:2])
    parts = []
    for x, weight, shift, count in zip((query, key, value), maps, shifts, (heads, kv_heads, kv_heads), strict=True):
        y = x @ weight.T + shift
        parts.append(y.reshape(*y.shape[:2], count, width).transpose(1, 2, 0, 3))
    mixed = attention(*parts, **options).transpose(2, 0, 1, 3).reshape(query.shape)
    return mixed @ params["out_proj.weight"].T + params.get("out_proj.bias", 0)


def additive_attention(params, query, key, value, kv_lengths):
    """query (N, S, Q), key (N, K, D), value (N, K, Ev) -> (N, S, Ev)."""
    out = np.zeros((*query.shape[:2], value.shape[2]), complex)
    for n, i in np.ndindex(query.shape[:2]):
        end = kv_lengths[n]
        if end:
            bent = np.tanh(
                params["query.weight"] @ query[n, i] + key[n, :end] @ params["key.weight"].T + params["bias"]
            )
            scores = bent @ params["score.weight"]
            weights = np.exp(scores - scores.real.max())
            out[n, i] = weights @ value[n, :end] / weights.sum()
    return out


# Other layers -----------------------------------------------------------------------------------------------------


def linear(params, x):
    return x @ params["weight"].T + params.get("bias", 0)


def embedding(params, ids):
    return params["weight"][ids]


def layer_norm(params, x, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    return normal * params["weight"] + params.get("bias", 0)


def log_softmax(x):
    shifted = x - x.real.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def max_over_time(x, lengths):
    y = np.zeros(x.shape[1:], complex)
    for n, k in np.ndindex(y.shape):
        if lengths[n]:
            y[n, k] = x[x[: lengths[n], n, k].real.argmax(), n, k]
    return y


# Losses: of each row that counts, reduced ---------------------------------------------------------------------------


def reduced(losses, counts, reduction, total=None):
    """losses (M, ...), of which those that count; a mean is divided by `total`, by their number as it is."""
    losses = np.array([row if count else 0 * row for row, count in zip(losses, counts, strict=True)], losses.dtype)
    if reduction == "none":
        return losses
    total = losses[counts].size if total is None else total
    return losses.sum() / (1 if reduction == "sum" or not total else total)


def cross_entropy(scores, targets, counts, reduction="mean", weight=None, label_smoothing=0.0):
    w = np.ones(scores.shape[1]) if weight is None else weight
    losses, total = np.zeros(len(scores), complex), 0.0
    for m in np.flatnonzero(counts):
        surprise, t = -log_softmax(scores[m]), targets[m]
        losses[m] = (1 - label_smoothing) * w[t] * surprise[t] + label_smoothing * np.mean(w * surprise)
        total += w[t]
    return reduced(losses, counts, reduction, total)


def negative_log_likelihood(scores, targets, counts, reduction="mean", weight=None):
    w = np.ones(scores.shape[1]) if weight is None else weight
    losses, total = np.zeros(len(scores), complex), 0.0
    for m in np.flatnonzero(counts):
        losses[m] = -w[targets[m]] * scores[m, targets[m]]
        total += w[targets[m]]
    return reduced(losses, counts, reduction, total)


def hinge(scores, targets, counts, reduction="mean", weight=None):
    w = np.ones(scores.shape[1]) if weight is None else weight
    losses = np.zeros(len(scores), complex)
    for m in np.flatnonzero(counts):
        t, classes = targets[m], scores.shape[1]
        losses[m] = w[t] * sum(relu(1 - scores[m, t] + scores[m, v]) for v in range(classes) if v != t) / classes
    return reduced(losses, counts, reduction)


def mean_squared_error(scores, targets, counts, reduction="mean"):
    return reduced((scores - targets) ** 2, counts, reduction)


def pinball(scores, targets, counts, reduction="mean", quantile=0.5):
    above = np.real(targets) > np.real(scores)
    return reduced(np.where(above, quantile, quantile - 1) * (targets - scores), counts, reduction)


def binary_cross_entropy(scores, targets, counts, reduction="mean", weight=None, pos_weight=None):
    weight, pos_weight = (1 if w is None else w for w in (weight, pos_weight))
    losses = -pos_weight * targets * np.log(sigmoid(scores)) - (1 - targets) * np.log(sigmoid(-scores))
    return reduced(weight * losses, counts, reduction)


# Optimisers: parameters after a history of gradients ------------------------------------------------------------------


def adam(param, grads, lr, betas, eps, weight_decay, decoupled=False):
    m, v = np.zeros_like(param), np.zeros_like(param)
    for step, g in enumerate(grads, 1):
        if decoupled:
            param = param - lr * weight_decay * param
        else:
            g = g + weight_decay * param
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        param = param - lr * (m / (1 - betas[0] ** step)) / (np.sqrt(v / (1 - betas[1] ** step)) + eps)
    return param


def sgd(param, grads, lr, momentum, weight_decay, nesterov):
    v = np.zeros_like(param)
    for g in grads:
        g = g + weight_decay * param
        v = momentum * v + g
        param = param - lr * (g + momentum * v if nesterov else v)
    return param


def rmsprop(param, grads, lr, alpha, eps, weight_decay, momentum):
    square, v = np.zeros_like(param), np.zeros_like(param)
    for g in grads:
        g = g + weight_decay * param
        square = alpha * square + (1 - alpha) * g**2
        v = momentum * v + g / (np.sqrt(square) + eps)
        param = param - lr * v
    return param


def adagrad(param, grads, lr, eps, weight_decay):
    square = np.zeros_like(param)
    for g in grads:
        g = g + weight_decay * param
        square = square + g**2
        param = param - lr * g / (np.sqrt(square) + eps)
    return param


# Associative memories -----------------------------------------------------------------------------------------------


def hebbian(patterns):
    """patterns (P, n) of -1 and 1, signs not counted -> (n, n)."""
    n = patterns.shape[1]
    w = np.zeros((n, n))
    for x, i, j in itertools.product(patterns.tolist(), range(n), range(n)):
        if i != j:
            w[i, j] += x[i] * x[j]
    return w


def storkey(patterns):
    n = patterns.shape[1]
    w = np.zeros((n, n))
    for x in patterns:
        before = w.copy()
        for i, j in itertools.product(range(n), repeat=2):
            if i != j:
                h_ij = sum(before[i, k] * x[k] for k in range(n) if k not in (i, j))
                h_ji = sum(before[j, k] * x[k] for k in range(n) if k not in (i, j))
                w[i, j] += (x[i] * x[j] - x[i] * h_ji - h_ij * x[j]) / n
    return w


def pseudo_inverse(patterns):
    w = np.linalg.pinv(patterns) @ patterns
    return w - np.diag(np.diag(w))


def hopfield_energy(w, state, threshold, external):
    return -0.5 * (state @ w @ state) + threshold @ state - external @ state


def dense_energy(patterns, state, function, external):
    return -math.fsum(function(int(x @ state)) for x in patterns) - external @ state


def recall(state, energy, off, *, order=None, max_sweeps=100):
    """Units turn to the value of lower energy and stay where both are equal, one after the other in `order`, or with
    None all at once. state, converged, sweeps, flips and the energies on the way. `energy` is of a state; two of them
    nearer than rounding are equal."""
    state = state.copy()
    energies, flips, seen = [energy(state)], 0, [state.tolist()]

    def choice(i):
        found = []
        for value in (off, 1):
            tried = state.copy()
            tried[i] = value
            found.append(energy(tried))
        if math.isclose(*found, rel_tol=1e-12, abs_tol=1e-9):
            return state[i]
        return 1 if found[1] < found[0] else off

    for sweep in range(1, max_sweeps + 1):
        before = state.copy()
        if order is None:
            state = np.array([choice(i) for i in range(len(state))])
            changed = int((state != before).sum())
        else:
            changed = 0
            for i in order:
                value = choice(i)
                changed += int(value != state[i])
                state[i] = value
        flips += changed
        energies.append(energy(state))
        if changed == 0:
            return state, True, sweep, flips, energies
        if order is None and len(seen) > 1 and state.tolist() == seen[-2]:
            return state, False, sweep, flips, energies
        seen.append(state.tolist())
    return state, False, max_sweeps, flips, energies


def modern_step(state, patterns, beta):
    """softmax(beta s Y^T) Y of a state (d,)."""
    scores = beta * (patterns @ state)
    weights = np.exp(scores - scores.real.max())
    return weights @ patterns / weights.sum()


def retrieve(state, patterns, beta, max_steps, tol):
    """state (N, d), each row until it moves by no more than tol."""
    rows = []
    for s in state:
        for _ in range(max_steps):
            before, s = s, modern_step(s, patterns, beta)
            if np.abs((s - before).real).max() <= tol:
                break
        rows.append(s)
    return np.array(rows)


def modern_energy(state, patterns, beta):
    scores = beta * (patterns @ state)
    lse = (scores.max() + math.log(np.exp(scores - scores.max()).sum())) / beta
    return -lse + state @ state / 2 + math.log(len(patterns)) / beta + max(y @ y for y in patterns) / 2
