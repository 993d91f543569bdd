// pyrnn.kernels.rnn, lstm, gru and the other cells: of each its gates, states, weights and options.
#include <array>
#include <limits>

#include "bindings/bindings.hpp"
#include "bindings/encoded.hpp"
#include "bindings/recurrent.hpp"

namespace pyrnn {

namespace {

constexpr const char* forward_doc =
    "One layer in one direction over x (T, N, I): returns y (T, N, H) and the final state, a tuple of arrays. With ids "
    "(T, N), x is a table (V, I) and step t of row n reads x[ids[t, n]]. Several models of one shape run at once where "
    "the weights, and then x, the state and all that comes, have an axis of models in front.";
constexpr const char* vjp_doc =
    "forward, and a pullback(dy, dstate, grads) -> (dx, dstate) that adds to the arrays in grads; used once. With "
    "per_row "
    "these have an axis of rows in front, (N, ...), for the gradients of each.";
constexpr const char* stream_doc = "Layers one upon the other (a sequence of weights), one step at a time.";

// The module of an op, which must live as long as the process. choose(call, options...) says what the options ask
// for; `option` are their names and defaults.
template <class... Option, class... Arg>
void bind_cell(py::module_& parent, const RecurrentOp& op, const char* doc,
               Chosen (*choose)(const std::string& call, Option...), const Arg&... option) {
  py::module_ m = parent.def_submodule(op.name, doc);
  py::tuple names(op.weights.size()), states(op.states.size());
  py::dict letters;
  for (std::size_t i = 0; i < op.weights.size(); ++i) {
    names[i] = py::str(op.weights[i].name);
    letters[op.weights[i].name] = op.weights[i].letters;
  }
  for (std::size_t i = 0; i < op.states.size(); ++i) states[i] = py::str(op.states[i]);
  m.attr("WEIGHTS") = names;
  m.attr("SHAPES") = letters;
  m.attr("STATES") = states;
  m.attr("GATES") = op.gates;
  const py::none none;
  const auto chosen_of = [choose](const std::string& call, std::string_view precision, const Option&... given) {
    Chosen chosen = choose(call, given...);
    chosen.rounded = is_rounded(call, precision);
    return chosen;
  };
  m.def(
      "forward",
      [&op, chosen_of](py::object x, py::object state, py::object weights, py::object ids, py::object lengths,
                       py::object reset, bool reverse, py::object out, std::string_view precision, Option... given) {
        const Chosen chosen = chosen_of(std::string(op.name) + ".forward", precision, given...);
        return recurrent_forward(op, chosen, x, state, weights, ids, lengths, reset, reverse, out);
      },
      py::arg("x"), py::arg("state"), py::arg("weights"), py::kw_only(), py::arg("ids") = none,
      py::arg("lengths") = none, py::arg("reset") = none, py::arg("reverse") = false, py::arg("out") = none,
      py::arg("precision") = "float32", option..., forward_doc);
  m.def(
      "vjp",
      [&op, chosen_of](py::object x, py::object state, py::object weights, py::object ids, py::object lengths,
                       py::object reset, bool reverse, py::object checkpoint_every, bool per_row, py::object out,
                       std::string_view precision, Option... given) {
        const Chosen chosen = chosen_of(std::string(op.name) + ".vjp", precision, given...);
        return recurrent_vjp(op, chosen, x, state, weights, ids, lengths, reset, reverse, checkpoint_every, per_row,
                             out);
      },
      py::arg("x"), py::arg("state"), py::arg("weights"), py::kw_only(), py::arg("ids") = none,
      py::arg("lengths") = none, py::arg("reset") = none, py::arg("reverse") = false,
      py::arg("checkpoint_every") = none, py::arg("per_row") = false, py::arg("out") = none,
      py::arg("precision") = "float32", option..., vjp_doc);
  m.def(
      "stream",
      [&op, chosen_of](py::object layers, py::object batch, std::string_view precision, Option... given) {
        const Chosen chosen = chosen_of(std::string(op.name) + ".stream", precision, given...);
        return recurrent_stream(op, chosen, layers, batch);
      },
      py::arg("layers"), py::arg("batch"), py::kw_only(), py::arg("precision") = "float32", option..., stream_doc);
}

template <CellKind kind> Chosen always(const std::string&) { return kind; }

// Which of `names` it is.
template <std::size_t n>
std::size_t named(const std::string& call, const char* option, const std::string& name,
                  const std::array<const char*, n>& names) {
  std::string all;
  for (std::size_t k = 0; k < n; ++k) {
    if (name == names[k]) return k;
    all += std::string(k == 0 ? "'" : k + 1 < n ? "', '" : "' or '") + names[k];
  }
  wrong_value(call, std::string(option) + " is " + shown(py::str(name)) + ", expected " + all + "'");
}

constexpr std::array<const char*, 3> nonlinearities{"tanh", "relu", "sigmoid"};

// One of three kinds in a row.
template <CellKind tanh> Chosen by_nonlinearity(const std::string& call, const std::string& nonlinearity) {
  return CellKind(int(tanh) + int(named(call, "nonlinearity", nonlinearity, nonlinearities)));
}

constexpr std::array<const char*, 5> activations{"tanh", "relu", "sigmoid", "softsign", "identity"};
constexpr std::array<const char*, 3> gate_activations{"sigmoid", "hard_sigmoid", "hard_sigmoid_6"};
constexpr std::array gate_nonlinearities{Nonlinearity::sigmoid, Nonlinearity::hard_sigmoid,
                                         Nonlinearity::hard_sigmoid_6};

// `usual`, or where other activations are asked for the kind that has these.
Chosen with_activations(const std::string& call, CellKind usual, CellKind activated, const std::string& activation,
                        const std::string& gate_activation) {
  const CellOptions options{
      .activation = Nonlinearity(named(call, "activation", activation, activations)),
      .gate_activation = gate_nonlinearities[named(call, "gate_activation", gate_activation, gate_activations)]};
  const CellOptions none;
  const bool is_usual = options.activation == none.activation && options.gate_activation == none.gate_activation;
  return {is_usual ? usual : activated, options};
}

const CellWeight weight_ih{"weight_ih", Role::ih, "GI"}, weight_hh{"weight_hh", Role::hh, "GP"};
const CellWeight bias_ih{"bias_ih", Role::b_ih, "G", true}, bias_hh{"bias_hh", Role::b_hh, "G", true};

const RecurrentOp rnn{"rnn", "h", {"h"}, {weight_ih, weight_hh, bias_ih, bias_hh}};

const RecurrentOp lstm{"lstm",
                       "ifgo",
                       {"h", "c"},
                       {weight_ih,
                        weight_hh,
                        bias_ih,
                        bias_hh,
                        {"weight_hr", Role::hr, "PH", true},
                        {"weight_ch", Role::unit, "3H", true}},
                       [](CellKind chosen, bool projection, bool peephole) {
                         if (chosen == CellKind::lstm_activated)
                           return projection ? CellKind::lstm_activated_projected : chosen;
                         if (projection) return peephole ? CellKind::lstm_peephole_projected : CellKind::lstm_projected;
                         return peephole ? CellKind::lstm_peephole : CellKind::lstm;
                       }};

const RecurrentOp gru{"gru", "rzn", {"h"}, {weight_ih, weight_hh, bias_ih, bias_hh}};

Chosen gru_kind(const std::string& call, bool reset_after, const std::string& activation,
                const std::string& gate_activation) {
  using enum CellKind;
  return with_activations(call, reset_after ? gru_reset_after : gru_reset_before,
                          reset_after ? gru_reset_after_activated : gru_reset_before_activated, activation,
                          gate_activation);
}

Chosen lstm_kind(const std::string& call, const std::string& activation, const std::string& gate_activation) {
  return with_activations(call, CellKind::lstm, CellKind::lstm_activated, activation, gate_activation);
}

const RecurrentOp indrnn{"indrnn", "h", {"h"}, {weight_ih, {"weight_hh", Role::unit, "H"}, bias_ih}};
const RecurrentOp mingru{"mingru", "zn", {"h"}, {weight_ih, bias_ih}};
const RecurrentOp minlstm{"minlstm", "ifn", {"h"}, {weight_ih, bias_ih}};
const RecurrentOp slstm{"slstm", "ifgo", {"h", "c", "n", "m"}, {weight_ih, weight_hh, bias_ih, bias_hh}};

const RecurrentOp layernormlstm{"layernormlstm",
                                "ifgo",
                                {"h", "c"},
                                {weight_ih,
                                 weight_hh,
                                 {"norm_ih", Role::unit, "G"},
                                 {"norm_hh", Role::unit, "G"},
                                 {"bias_ih", Role::unit, "G", true},
                                 {"norm_c", Role::unit, "H"},
                                 {"bias_c", Role::unit, "H"}}};

Chosen with_eps(const std::string& call, double eps) {
  if (!(eps >= 0 && eps <= std::numeric_limits<float>::max()))
    wrong_value(call, "eps is " + shown(py::float_(eps)) + ", expected a number from 0 on");
  return {CellKind::layernormlstm, {.eps = eps}};
}

}  // namespace

void bind_cells(py::module_& m) {
  bind_cell(m, rnn, "The Elman RNN, compiled.", by_nonlinearity<CellKind::rnn_tanh>, py::arg("nonlinearity") = "tanh");
  const auto activation = py::arg("activation") = "tanh", gate_activation = py::arg("gate_activation") = "sigmoid";
  bind_cell(m, lstm, "The long short-term memory, compiled.", lstm_kind, activation, gate_activation);
  bind_cell(m, gru, "The gated recurrent unit, compiled.", gru_kind, py::arg("reset_after") = true, activation,
            gate_activation);
  bind_cell(m, indrnn, "The independently recurrent network, compiled.", by_nonlinearity<CellKind::indrnn_tanh>,
            py::arg("nonlinearity") = "relu");
  bind_cell(m, mingru, "The minimal GRU, compiled.", always<CellKind::mingru>);
  bind_cell(m, minlstm, "The minimal LSTM, compiled.", always<CellKind::minlstm>);
  bind_cell(m, slstm, "The sLSTM, compiled.", always<CellKind::slstm>);
  bind_cell(m, layernormlstm, "The LSTM with layer normalisation, compiled.", with_eps, py::arg("eps") = 1e-5);
}

}  // namespace pyrnn
