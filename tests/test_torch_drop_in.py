"""pyrnn.torch against torch's own modules: torch's tests of them, values and gradients, and what torch's users do."""

import copy
import importlib
import io
import itertools
import os
import pickle
import warnings

import numpy as np
import pytest
from cells import python

torch = pytest.importorskip("torch")
nn, rnn = torch.nn, torch.nn.utils.rnn
ours = importlib.import_module("pyrnn.torch")

NAMES = ("RNN", "LSTM", "GRU")
TOLERANCE = {torch.float32: {"rtol": 2e-4, "atol": 2e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-11}}

# torch says that it cannot run a projection on oneDNN, and that it allocates for the first backward in a thread.
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported:UserWarning"),
    pytest.mark.usefixtures("one_torch_thread"),
]


def flat(result):
    """All tensors of nested results."""
    if result is None or isinstance(result, torch.Tensor):
        return [] if result is None else [result]
    if isinstance(result, rnn.PackedSequence):
        return [result.data]
    return [tensor for part in result for tensor in flat(part)]


def pair(name, *args, **kwargs):
    """torch's module, and ours with the same weights."""
    theirs = getattr(nn, name)(*args, **kwargs)
    module = getattr(ours, name)(*args, **kwargs)
    module.load_state_dict(theirs.state_dict())
    return theirs, module


def close(one, other):
    one, other = flat(one), flat(other)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, **TOLERANCE[b.dtype])


def loss(result):
    """A number that depends on each part of a result in its own way."""
    generator = torch.Generator().manual_seed(3)
    return sum((t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in flat(result))


def both_ways(module, x, hx=None):
    """Results, and the gradients of whatever has one."""
    leaves = [t for t in (*flat(x), *flat(hx), *module.parameters()) if t.requires_grad]
    result = module(x, hx)
    return flat(result), torch.autograd.grad(loss(result), leaves)


# ------------------------------------------------------------------------------------------- torch's tests of its own

LEFT_OUT = {  # torch's tests of modules that are not run here
    "test_gradgrad": "there are no second derivatives: test_second_derivative",
    "test_cpu_gpu_parity": "the kernels run on the CPU",
    "test_multiple_device_transfer": "the kernels run on the CPU",
    "test_to_empty": "no other code than torch's runs: nn.Module.to_empty",
    "test_check_inplace": "no recurrent module has the argument inplace",
}
RUN = ("forward", "factory_kwargs", "repr", "save_load", "pickle", "non_contiguous_tensors", "grad", "memory_format",
       "if_train_and_eval_modes_differ", "errors", "to")  # fmt: skip


def samples(name, dtype=torch.double):
    """(our module, its inputs, the sample) for each sample in torch's database."""
    pytest.importorskip("expecttest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = importlib.import_module("torch.testing._internal.common_modules")
    (info,) = [info for info in modules.module_db if info.module_cls is getattr(nn, name)]
    options = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": True}
    if name != "LSTM":
        options["with_packed_sequence"] = True
    found = info.module_inputs_func(info, **options)
    assert found
    for sample in found:
        made, given = sample.constructor_input, sample.forward_input
        module = getattr(ours, name)(*made.args, **made.kwargs, device="cpu", dtype=dtype)
        yield module, (*given.args, *given.kwargs.values()), sample


def test_every_test_of_torchs_is_run_or_left_out_for_a_reason():
    here = {f"test_{name}" for name in RUN}
    assert not here & LEFT_OUT.keys()
    assert {f"test_torchs_{name}" for name in RUN} <= globals().keys()
    print(f"{len(here)} of torch's tests of modules are run, {len(LEFT_OUT)} are not: {LEFT_OUT}")


@pytest.mark.parametrize("name", NAMES)
def test_torchs_forward(name):
    for module, inputs, sample in samples(name):
        if isinstance(inputs[0], rnn.PackedSequence):
            theirs = getattr(nn, name)(*sample.constructor_input.args, **sample.constructor_input.kwargs).double()
            theirs.load_state_dict(module.state_dict())
            close(module(*inputs), theirs(*inputs))
        else:
            reference = sample.reference_fn(module, *inputs)
            close(module(*inputs), reference)


@pytest.mark.parametrize("name", NAMES)
def test_torchs_factory_kwargs(name):
    for dtype in (torch.float32, torch.float64):
        module = getattr(ours, name)(2, 3, device="cpu", dtype=dtype)
        assert {p.dtype for p in module.parameters()} == {dtype}
    with torch.device("meta"):
        assert all(p.is_meta for p in getattr(ours, name)(2, 3).parameters())


@pytest.mark.parametrize("name", NAMES)
def test_torchs_repr(name):
    for module, _, sample in samples(name):
        made = sample.constructor_input
        assert repr(module) == repr(getattr(nn, name)(*made.args, **made.kwargs))


@pytest.mark.parametrize("name", NAMES)
def test_torchs_save_load(name):
    for module, inputs, sample in samples(name):
        made = sample.constructor_input
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        theirs = getattr(nn, name)(*made.args, **made.kwargs, dtype=torch.double)
        assert list(theirs.state_dict()) == list(module.state_dict())
        theirs.load_state_dict(torch.load(file))
        close(module(*inputs), theirs(*inputs))


@pytest.mark.parametrize("name", NAMES)
def test_torchs_pickle(name):
    for module, inputs, _ in samples(name):
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        copies = [pickle.loads(pickle.dumps(module)), copy.deepcopy(module), torch.load(file, weights_only=False)]
        for other in copies:
            assert type(other) is type(module)
            for a, b in zip(flat(other(*inputs)), flat(module(*inputs)), strict=True):
                assert torch.equal(a, b)


def not_contiguous(x):
    """The same values, every other number of a larger tensor."""
    if not isinstance(x, torch.Tensor):
        return tuple(map(not_contiguous, x)) if isinstance(x, tuple) and type(x) is tuple else x
    wide = torch.stack([x.detach(), torch.full_like(x, float("nan"))], dim=-1)[..., 0]
    assert not wide.is_contiguous()
    return wide.requires_grad_(x.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_torchs_non_contiguous_tensors(name):
    for module, inputs, _ in samples(name):
        strided = [not_contiguous(x) for x in inputs]
        for a, b in zip(both_ways(module, *inputs), both_ways(module, *strided), strict=True):
            assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_torchs_grad(name):
    """Finite differences; every fourth sample, which has all of the options between them."""
    for module, inputs, _ in itertools.islice(samples(name), 0, None, 5):
        names = [key for key, _ in module.named_parameters()]
        leaves = [t for t in (*flat(inputs[0]), *flat(inputs[1:])) if t.requires_grad]
        if isinstance(inputs[0], rnn.PackedSequence):
            leaves = []

        def call(*tensors, module=module, inputs=inputs, leaves=leaves, names=names):
            given = list(tensors[: len(leaves)])
            params = dict(zip(names, tensors[len(leaves) :], strict=True))
            x = inputs[0] if not leaves else given.pop(0)
            hx = None if not given else tuple(given) if len(given) > 1 else given[0]
            return tuple(flat(torch.func.functional_call(module, params, (x, hx))))

        assert torch.autograd.gradcheck(call, (*leaves, *module.parameters()), fast_mode=True, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_torchs_memory_format(name):
    """Formats are for 4 and 5 axes; a module that is asked for one computes as before."""
    for module, inputs, _ in samples(name):
        expected = flat(module(*inputs))
        for asked in (torch.preserve_format, torch.contiguous_format):
            module.to(memory_format=asked)
            assert all(torch.equal(a, b) for a, b in zip(flat(module(*inputs)), expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_torchs_if_train_and_eval_modes_differ(name):
    module = getattr(ours, name)(3, 4, num_layers=2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    assert not torch.equal(module(x)[0], module.eval()(x)[0])
    assert torch.equal(module(x)[0], module.eval()(x)[0])


@pytest.mark.parametrize("name", NAMES)
def test_torchs_errors(name):
    """The same errors as torch's, with the same words."""
    theirs, module = pair(name, 10, 20)
    state = torch.zeros(1, 3, 20)
    cases = [
        (torch.zeros(3, 4, 11), None),
        (torch.zeros(4), None),
        (torch.zeros(2, 2, 2, 10), None),
        (torch.zeros(0, 3, 10), None),
        (torch.zeros(0, 10), None),
        (torch.zeros(3, 3, 10, dtype=torch.int64), None),
        (torch.zeros(3, 3, 10, dtype=torch.float64), None),
        (torch.zeros(3, 4, 10), (state, state)),
        (torch.zeros(3, 4, 10), state),
        (torch.zeros(3, 3, 10), state[..., :19]),
        (torch.zeros(3, 10), state),
        (torch.zeros(3, 3, 10), (state[0], state[0])),
        ([1, 2], None),
    ]
    for x, hx in cases:
        with pytest.raises((RuntimeError, ValueError, AttributeError, TypeError, IndexError)) as expected:
            theirs(x, hx)
        with pytest.raises(type(expected.value)) as found:
            module(x, hx)
        assert str(found.value) == str(expected.value)
    for wrong in ({"hidden_size": 0}, {"num_layers": 0}, {"dropout": 2.0}, {"bias": 1}, {"hidden_size": 2.5}):
        with pytest.raises((ValueError, TypeError)):
            getattr(ours, name)(**{"input_size": 2, "hidden_size": 3} | wrong)


@pytest.mark.parametrize("name", NAMES)
def test_torchs_to(name):
    module = getattr(ours, name)(3, 4).to(torch.float64)
    assert module(torch.ones(5, 2, 3, dtype=torch.float64))[0].dtype is torch.float64


# ------------------------------------------------------------------------------------------------ against torch's own


@pytest.mark.parametrize("kind", ["batch", "row", "packed", "unsorted"])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name, kind):
    """All options; float32 without batch_first, float64 with it."""
    torch.manual_seed(0)
    options = {
        "num_layers": (1, 2),
        "bias": (True, False),
        "batch_first": (False, True),
        "bidirectional": (False, True),
    }
    options["proj_size"] = (0, 2) if name == "LSTM" else (0,)
    for values, given in itertools.product(itertools.product(*options.values()), (False, True)):
        chosen = dict(zip(options, values, strict=True))
        dtype = torch.float64 if chosen["batch_first"] else torch.float32
        if name != "LSTM":
            del chosen["proj_size"]
        theirs, module = pair(name, 3, 4, **chosen, dtype=dtype)
        shape = (5, 3) if kind == "row" else (3, 5, 3) if chosen["batch_first"] else (5, 3, 3)
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        lengths, ordered = ([5, 3, 1], True) if kind == "packed" else ([2, 5, 4], False)
        lead = (chosen["num_layers"] * (1 + chosen["bidirectional"]), *(() if kind == "row" else (3,)))
        widths = (chosen.get("proj_size") or 4, 4)[: 2 if name == "LSTM" else 1]
        state = tuple(torch.randn(*lead, width, dtype=dtype, requires_grad=True) for width in widths)
        hx = None if not given else state if name == "LSTM" else state[0]
        results = []
        for one in (module, theirs):
            inputs = x
            if kind in ("packed", "unsorted"):
                inputs = rnn.pack_padded_sequence(x, lengths, chosen["batch_first"], enforce_sorted=ordered)
            result = one(inputs, hx)
            leaves = [x, *flat(hx), *one.parameters()]
            results.append((flat(result), torch.autograd.grad(loss(result), leaves, retain_graph=True)))
            last = torch.autograd.grad(loss(result[1]), list(one.parameters()))  # y has no gradient
            results[-1] += (last,)
            with torch.no_grad():
                close(one(inputs, hx), result)
            if isinstance(result[0], rnn.PackedSequence):
                for theirs_part, part in zip(result[0][1:], inputs[1:], strict=True):
                    assert part is theirs_part or torch.equal(part, theirs_part)
        close(*results)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows(name):
    theirs, module = pair(name, 3, 4, num_layers=2, bidirectional=True)
    x = torch.zeros(5, 0, 3, requires_grad=True)
    result = module(x)
    assert [t.shape for t in flat(result)] == [t.shape for t in flat(theirs(x))]
    loss(result).backward()
    assert x.grad.shape == x.shape
    assert all(not p.grad.any() for p in module.parameters())


def test_relu():
    theirs, module = pair("RNN", 3, 4, 2, "relu", batch_first=True)
    x = torch.randn(2, 6, 3, requires_grad=True)
    for a, b in zip(both_ways(module, x), both_ways(theirs, x), strict=True):
        close(a, b)


def test_a_long_run_of_steps():
    """float32, as torch's own: rounding in other places, as far as a hundred steps carry it."""
    theirs, module = pair("GRU", 16, 32, 2, bidirectional=True)
    x = torch.randn(100, 8, 16, requires_grad=True)
    results = [both_ways(one, x) for one in (module, theirs)]
    for a, b in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


def test_threads_of_both():
    """So much work that torch's are sent home: the same bits, and torch goes on with as many as before."""
    module, x = ours.LSTM(64, 96), torch.randn(40, 16, 64)
    expected = both_ways(module, x)
    torch.set_num_threads(2)
    try:
        (y, *_), gradients = both_ways(module, x)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.relu(torch.cat([y] * 50)), torch.cat([torch.relu(y)] * 50))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(y, expected[0][0])
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected[1], strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork():
    """Nobody waits for torch's threads, which are the parent's."""
    code = """
        import os, torch, pyrnn.torch
        torch.set_num_threads(2)
        module, x = pyrnn.torch.LSTM(64, 96), torch.randn(40, 16, 64)
        torch.relu(torch.randn(2000, 2000)), module(x)
        child = os.fork()
        if not child:
            torch.set_num_threads(1)
            module(x)[0].sum().backward()
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert python(code).strip() == "7"


def test_arrays_are_shared():
    """A weight that is written is seen at once, and inputs are not copied into the graph."""
    module = ours.LSTM(3, 4)
    x = torch.ones(5, 2, 3)
    before = module(x)[0].detach().clone()
    module.weight_ih_l0.detach().numpy()[:] = 0
    assert not torch.equal(before, module(x)[0])


def test_the_same_start_and_dropout_from_a_seed():
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        module = ours.GRU(3, 4, 3, dropout=0.5, bidirectional=True)
        results.append([*module.parameters(), *flat(module(torch.ones(5, 2, 3)))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    torch.manual_seed(5)
    assert all(
        torch.equal(a, b) for a, b in zip(nn.GRU(3, 4, 3, bidirectional=True).parameters(), results[0], strict=False)
    )


@pytest.mark.parametrize("packed", [False, True])
def test_dropout_between_layers(packed):
    """A layer above ones of which so many are zero and the rest is twice as large; the last layer's output is whole."""
    module = ours.RNN(1, 64, 2, "relu", bias=False, dropout=0.5)
    with torch.no_grad():
        for weight in module.parameters():
            weight.zero_()
        module.weight_ih_l0.fill_(1)
        module.weight_ih_l1.copy_(torch.eye(64))
    x = torch.ones(50, 4, 1)
    y = module(rnn.pack_padded_sequence(x, [50, 40, 30, 20]) if packed else x)[0]
    y = (y.data if packed else y).detach()
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert abs(float(y.mean()) - 1) < 6 / np.sqrt(y.numel())
    assert set(module.eval()(x)[0].unique().tolist()) == {1.0}


# ------------------------------------------------------------------------------------------------ what torch's users do


def test_they_are_torchs():
    for name in NAMES:
        theirs, module = pair(name, 3, 4, num_layers=2)
        assert isinstance(module, getattr(nn, name))
        assert list(module.state_dict()) == list(theirs.state_dict())


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layers = nn.ModuleList([nn.LSTM(8, 6, bidirectional=True, batch_first=True), nn.GRU(12, 6)])
        self.head = nn.Linear(6, 5)

    def forward(self, ids):
        x = self.layers[0](self.embed(ids))[0]
        return self.head(self.layers[1](x.transpose(0, 1))[0])


@pytest.mark.parametrize("optimiser", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_training_goes_as_in_torch(optimiser):
    torch.manual_seed(1)
    theirs = Tagger().double()
    model = ours.accelerate(copy.deepcopy(theirs))
    assert [type(layer) for layer in model.layers] == [ours.LSTM, ours.GRU]
    ids, tags = torch.randint(0, 20, (4, 7)), torch.randint(0, 5, (7 * 4,))
    losses = []
    for one in (model, theirs):
        steps = getattr(torch.optim, optimiser)(one.parameters(), lr=0.01)
        losses.append([])
        for _ in range(6):
            steps.zero_grad()
            for part in range(2):  # gradients add up
                value = nn.functional.cross_entropy(one(ids + part * 0).flatten(0, 1), tags)
                value.backward()
            nn.utils.clip_grad_norm_(one.parameters(), 1.0)
            steps.step()
            losses[-1].append(value.item())
    np.testing.assert_allclose(*losses, rtol=1e-9)
    assert losses[0][-1] < losses[0][0]


def test_accelerate():
    class Own(nn.LSTM):
        pass

    model = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "own": Own(3, 4), "with": nn.GRU(3, 4), "tied": nn.RNN(3, 4)})
    nn.utils.parametrize.register_parametrization(model["with"], "weight_hh_l0", nn.Identity(), unsafe=True)
    model["again"] = model["tied"]
    calls = []
    model["lstm"].register_forward_hook(lambda *_: calls.append(1))
    kinds = [type(model["own"]), type(model["with"])]
    parameters = list(model.parameters())
    assert ours.accelerate(model) is model
    assert [type(model["own"]), type(model["with"])] == kinds
    assert (type(model["lstm"]), type(model["tied"])) == (ours.LSTM, ours.RNN)
    assert model["again"] is model["tied"]
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    model["lstm"](torch.ones(2, 2, 3))
    assert calls == [1]
    alone = nn.GRU(2, 2)
    assert type(ours.accelerate(alone, fallback=True)) is ours.GRU
    assert alone.fallback
    assert not ours.accelerate(alone).fallback
    for wrong in (None, 3, nn.LSTM, [nn.LSTM(2, 2)]):
        with pytest.raises(TypeError, match="accelerate: module is"):
            ours.accelerate(wrong)
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, such as a state dict is loaded into"):
        ours.accelerate(alone.state_dict())
    with pytest.warns(UserWarning, match="accelerate: Linear has no nn.RNN, nn.LSTM or nn.GRU"):
        ours.accelerate(nn.Linear(2, 3))
    with pytest.raises(TypeError, match="accelerate: fallback is"):
        ours.accelerate(alone, fallback="yes")


def test_weights_from_a_hook():
    """torch's older weight_norm: the weight is no parameter but is computed before each call."""
    theirs, module = pair("LSTM", 3, 4)
    x = torch.randn(5, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs, module = (nn.utils.weight_norm(one, "weight_hh_l0") for one in (theirs, module))
    for a, b in zip(both_ways(module, x), both_ways(theirs, x), strict=True):
        close(a, b)


def test_some_parameters_without_a_gradient():
    for frozen in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        theirs, module = pair("LSTM", 3, 4)
        for one in (theirs, module):
            one.get_parameter(frozen).requires_grad_(False)
            loss(one(torch.ones(5, 2, 3))).backward()
        assert module.get_parameter(frozen).grad is None
        close([p.grad for p in module.parameters()], [p.grad for p in theirs.parameters()])
    module.requires_grad_(False)
    assert not module(torch.ones(5, 2, 3))[0].requires_grad


def test_without_a_tape():
    module = ours.GRU(3, 4)
    x = torch.ones(5, 2, 3)
    with torch.no_grad():
        assert not module(x)[0].requires_grad
    with torch.inference_mode():
        assert module(x)[0].is_inference()


def test_tied_weights():
    """One parameter in two layers, and one module called twice."""
    models = []
    for kind in (nn.RNN, ours.RNN):
        torch.manual_seed(2)
        model = nn.ModuleList([kind(4, 4), kind(4, 4)])
        model[1].weight_hh_l0 = model[0].weight_hh_l0
        x = torch.linspace(-1, 1, 40).reshape(5, 2, 4)
        loss(model[0](model[1](model[0](x)[0])[0])).backward()
        models.append(model)
    close(*[[p.grad for p in model.parameters()] for model in models])


def test_hooks_on_gradients():
    module = ours.LSTM(3, 4)
    seen = []
    module.weight_ih_l0.register_hook(lambda grad: seen.append(grad.clone()) or grad * 0)
    module.register_full_backward_hook(lambda *_: seen.append("module"))
    loss(module(torch.ones(5, 2, 3, requires_grad=True))).backward()
    assert "module" in seen
    assert any(isinstance(s, torch.Tensor) and s.any() for s in seen)
    assert not module.weight_ih_l0.grad.any()


def test_a_change_between_the_two_ways():
    """Of a weight, an input or a state: torch's error. Of the output: no matter."""
    module = ours.LSTM(3, 4)
    x, state = torch.ones(5, 2, 3), (torch.ones(1, 2, 4), torch.ones(1, 2, 4))
    for changed in (*module.parameters(), x, *state):
        y, _ = module(x, state)
        with torch.no_grad():
            changed.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    y, _ = module(x, state)
    expected = torch.autograd.grad(y.sum(), list(module.parameters()))
    y, _ = module(x, state)
    total = y.sum()
    y.detach().zero_()
    close(torch.autograd.grad(total, list(module.parameters())), expected)


def test_a_retained_graph():
    theirs, module = pair("GRU", 3, 4, 2)
    x = torch.randn(5, 2, 3, requires_grad=True)
    for one in (module, theirs):
        value = loss(one(x))
        for _ in range(3):
            value.backward(retain_graph=True)
        value.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            value.backward()
    close([p.grad for p in module.parameters()], [p.grad for p in theirs.parameters()])


def test_checkpointing():
    checkpoint = importlib.import_module("torch.utils.checkpoint").checkpoint
    module = ours.LSTM(3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    expected = both_ways(module, x)
    result = checkpoint(module, x, use_reentrant=False)
    close(torch.autograd.grad(loss(result), [x, *module.parameters()]), expected[1])


def test_functional_call():
    module = ours.GRU(3, 4)
    weights = {name: torch.zeros_like(p).requires_grad_() for name, p in module.named_parameters()}
    x = torch.randn(5, 2, 3)
    y, _ = torch.func.functional_call(module, weights, (x,))
    assert not y.any()
    y.sum().backward()
    assert weights["bias_ih_l0"].grad.any()
    assert module(x)[0].any()


def second(module):
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    (dx,) = torch.autograd.grad(loss(module(x)), x, create_graph=True)
    return torch.autograd.grad((dx * dx).sum(), list(module.parameters()))


def of_func(module):
    x = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 2, 3)
    return torch.func.grad(lambda p: loss(torch.func.functional_call(module, p, (x,))))(dict(module.named_parameters()))


def of_vmap(module):
    x = torch.linspace(-1, 1, 90, dtype=torch.float64).reshape(3, 5, 2, 3)
    return torch.func.vmap(lambda x: module(x)[0])(x)


def batched_gradients(module):
    y, _ = module(torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 2, 3))
    gradients = torch.stack([torch.ones_like(y), torch.linspace(0, 1, y.numel()).reshape(y.shape).to(y)])
    return torch.autograd.grad(y, list(module.parameters()), gradients, is_grads_batched=True)


def forward_mode(module):
    x = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 2, 3)
    return torch.func.jvp(lambda x: module(x)[0], (x,), (torch.ones_like(x),))


def low_precision(module):
    return copy.deepcopy(module).to(torch.bfloat16)(torch.ones(5, 2, 3, dtype=torch.bfloat16))


def autocast(module):
    with torch.autocast("cpu", torch.bfloat16):
        return copy.deepcopy(module).float()(torch.ones(5, 2, 3))


def other_device(module):
    return copy.deepcopy(module).to("meta")(torch.ones(5, 2, 3, dtype=torch.float64, device="meta"))


IMPOSSIBLE = {
    second: "second derivative",
    of_func: "torch.func",
    of_vmap: "torch.func",
    batched_gradients: "is_grads_batched",
    forward_mode: "torch.func",
    low_precision: "torch.bfloat16",
    autocast: "autocast",
    other_device: "meta",
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own use of it
@pytest.mark.parametrize("use", IMPOSSIBLE, ids=lambda use: use.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_possible(name, use):
    theirs, module = pair(name, 3, 4, 2, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=IMPOSSIBLE[use]):
        use(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            expected = use(theirs)
        except Exception as error:  # torch cannot do it either
            with pytest.raises(type(error)):
                use(ours.accelerate(module, fallback=True))
            return
        torch.manual_seed(0)
        found = use(ours.accelerate(module, fallback=True))
    if isinstance(found, dict):
        found, expected = list(found.values()), list(expected.values())
    for a, b in zip(flat(found), flat(expected), strict=True):
        assert a.device == b.device
        if not a.is_meta:
            torch.testing.assert_close(a, b)


def test_fallback_changes_no_value():
    theirs, module = pair("LSTM", 3, 4, 2, bidirectional=True, dtype=torch.float64)
    ours.accelerate(module, fallback=True)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    for a, b in zip(both_ways(module, x), both_ways(theirs, x), strict=True):
        close(a, b)


# --------------------------------------------------------------------------------------------------- torch's compilers


@pytest.mark.parametrize("name", NAMES)
def test_operators(name):
    """torch's own checks of an operator: its schema, its fake implementation, its way back."""
    module = getattr(ours, name)(3, 4, 2, bidirectional=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    recurrent = importlib.import_module("pyrnn.torch.recurrent").recurrent
    state = [torch.randn(4, 2, 4, requires_grad=True) for _ in range(2 if name == "LSTM" else 1)]
    arguments = (list(module.parameters()), module.mode, True, 2, True, False)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    for inputs in ((x, None, []), (x, None, state)):
        torch.library.opcheck(recurrent, (*inputs, *arguments), test_utils=checks)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_compile_and_export():
    model = ours.accelerate(Tagger())
    ids = torch.randint(0, 20, (4, 7))
    expected = model(ids)
    exported = torch.export.export(model, (ids,))
    assert sum("pyrnn.recurrent" in str(node.target) for node in exported.graph.nodes) == 2
    torch.testing.assert_close(exported.module()(ids), expected)
    dynamo = importlib.import_module("torch._dynamo")
    with dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        found = compiled(ids)
        torch.testing.assert_close(found, expected)
        leaves = list(model.parameters())
        gradients = torch.autograd.grad(loss(found), leaves), torch.autograd.grad(loss(expected), leaves)
        torch.testing.assert_close(*gradients)


# ----------------------------------------------------------------------------------------------------------- attention


def heads(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": "bool"},
                                     {"attn_mask": "float"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("lead", [(2, 4), (4,), (2, 3, 4)], ids=str)
def test_attention(lead, options):
    torch.manual_seed(0)
    options = dict(options)
    q, k, v = heads(*lead, 5, 6), heads(*lead, 7, 6), heads(*lead, 7, 3)
    if "attn_mask" in options:
        mask = torch.randn(5, 7, dtype=torch.float64)
        mask[0] = -torch.inf
        options["attn_mask"] = mask if options["attn_mask"] == "float" else mask > 0
    attention_is_torchs(q, k, v, **options)


def attention_is_torchs(q, k, v, **options):
    results = []
    for function in (ours.scaled_dot_product_attention, nn.functional.scaled_dot_product_attention):
        out = function(q, k, v, **options)
        results.append((out, torch.autograd.grad(loss(out), (q, k, v))))
        with torch.no_grad():
            torch.testing.assert_close(function(q, k, v, **options), out)
    close(*[[out, *gradients] for out, gradients in results])


def test_attention_of_groups():
    attention_is_torchs(heads(2, 4, 5, 6), heads(2, 2, 7, 6), heads(2, 2, 7, 3), enable_gqa=True)


def test_attention_refuses():
    q = heads(2, 3, 4, 5)
    attend = ours.scaled_dot_product_attention
    mask = torch.zeros(4, 4, dtype=torch.float64)
    cases = [
        (lambda: attend(q, q, q, dropout_p=0.1), "dropout_p is 0.1"),
        (lambda: attend(q, q, q, mask, is_causal=True), "only one may be"),
        (lambda: attend(q, q, q, mask.clone().requires_grad_()), "attn_mask requires a gradient"),
        (lambda: attend(q, q.float(), q), "expected one dtype"),
        (lambda: attend(q.bfloat16(), q.bfloat16(), q.bfloat16()), "torch.bfloat16"),
        (lambda: torch.func.vmap(lambda q: attend(q, q, q))(q), "torch.func"),
    ]
    for call, message in cases:
        with pytest.raises(RuntimeError, match=message):
            call()
    with pytest.raises(ValueError, match="key has shape"):
        attend(q, q[..., :4], q)
    (dq,) = torch.autograd.grad(attend(q, q, q).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        dq.sum().backward()
    with pytest.raises(RuntimeError, match="is_grads_batched"):
        torch.autograd.grad(attend(q, q, q), q, torch.ones(3, *q.shape, dtype=q.dtype), is_grads_batched=True)


def test_attention_as_an_operator():
    attention = importlib.import_module("pyrnn.torch.attention").attention
    q, k, v = heads(2, 4, 5, 6), heads(2, 2, 7, 6), heads(2, 2, 7, 3)
    mask = torch.zeros(5, 7, dtype=torch.bool)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(attention, (q, k, v, mask, False, None, True), test_utils=checks)
    torch.library.opcheck(attention, (q[0, 0], k[0, 0], v[0, 0], None, True, 0.3, False), test_utils=checks)


# -------------------------------------------------------------------------------------------------------------- import


def test_without_torch():
    without = "import sys\nsys.modules['torch'] = None\nimport pyrnn\n"
    assert "[torch]" in python(without + "try: import pyrnn.torch\nexcept ImportError as error: print(error)")
    assert python("import sys, pyrnn; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("tied", [False, True])
def test_second_derivatives_where_inputs_depend_on_each_other(tied):
    """A state that comes from the same layer, and a weight in two places: no path counts twice."""
    theirs = torch.nn.GRU(3, 4, 2, dtype=torch.float64)
    mine = ours.accelerate(copy.deepcopy(theirs), fallback=True)
    if tied:
        mine.weight_hh_l1, theirs.weight_hh_l1 = mine.weight_hh_l0, theirs.weight_hh_l0
    x = torch.randn(5, 2, 3, dtype=torch.float64)

    def gradients(layer):
        y, h = layer(x)
        again, _ = layer(x, h + y[-1])
        weights = list(layer.parameters())
        first = torch.autograd.grad(again.square().sum(), weights, create_graph=True)
        return first, torch.autograd.grad(sum(g.square().sum() for g in first), weights)

    for found, expected in zip(gradients(mine), gradients(theirs), strict=True):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * other.detach().abs().max().item())
