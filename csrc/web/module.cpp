// The library in a page (pyrnn/app/pages): the way forward of its kernels, in their 128-bit form, as functions of a
// WebAssembly module, one row at a time. `bash .ci/web` builds it. All arrays are C-ordered float32 where nothing else
// is said, in memory of `take`.
#include <cstdlib>

#include "associative/driver.hpp"
#include "associative/kernel.hpp"
#include "attention/forward.hpp"
#include "linear/driver.hpp"
#include "linear/kernel.hpp"
#include "recurrent/cells.hpp"
#include "recurrent/driver.hpp"

using namespace pyrnn;
using namespace pyrnn::PYRNN_ISA;

#define PYRNN_EXPORT(name) extern "C" __attribute__((export_name(#name)))

namespace {

// What a layer of a character model may be (pyrnn/app/charmodel.py), in the order of the pages.
template <CellKind kind> constexpr const CellKernels<float>* compiled = &Equations<float, CellOf<kind>>::compiled;
constexpr const CellKernels<float>* kinds[] = {
    compiled<CellKind::rnn_tanh>,    compiled<CellKind::lstm>,          compiled<CellKind::gru_reset_after>,
    compiled<CellKind::indrnn_relu>, compiled<CellKind::mingru>,        compiled<CellKind::minlstm>,
    compiled<CellKind::slstm>,       compiled<CellKind::layernormlstm>,
};

constexpr LinearKernels<float> linear_kernels = [] {
  LinearKernels<float> table{};
  table.lanes = lanes<float>;
  table.pack = LinearLoop<float>::pack, table.forward = LinearLoop<float>::forward;
  table.forward_few = LinearLoop<float>::forward_few;
  return table;
}();

constexpr AttentionKernels<float> attention_kernels = [] {
  using Forward = AttentionForward<float>;
  AttentionKernels<float> table{};
  table.lanes = lanes<float>;
  table.packed_size = Forward::packed_size, table.pack = Forward::pack, table.scratch_size = Forward::scratch_size;
  table.attend = Forward::attend, table.merge = Forward::merge;
  return table;
}();

constexpr HopfieldKernels<float> hopfield_kernels = [] {
  HopfieldKernels<float> table{};
  table.fields = HopfieldLoop<float>::fields;
  return table;
}();

}  // namespace

PYRNN_EXPORT(take) void* take(std::size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
PYRNN_EXPORT(give_back) void give_back(void* memory) { std::free(memory); }

// A layer of I inputs and H units. unit: its weights that are numbers of a unit, [.,H], or null.
PYRNN_EXPORT(layer)
Layer<float>* layer(int kind, int I, int H, float eps, const float* ih, const float* hh, const float* b_ih,
                    const float* b_hh, const float* unit) {
  Weights<const float> weights;
  weights.ih = ih, weights.hh = hh, weights.b_ih = b_ih, weights.b_hh = b_hh, weights.options.eps = eps;
  for (int k = 0; unit && k < kinds[kind]->unit_weights; ++k) weights.unit[std::size_t(k)] = unit + k * H;
  return new Layer<float>(*kinds[kind], {I, H, H}, weights);
}

// H rounded up to whole registers, and the numbers of a record.
PYRNN_EXPORT(padded_units) int padded_units(const Layer<float>* layer) { return int(layer->Hp); }
PYRNN_EXPORT(record_size) int record_size(const Layer<float>* layer) { return int(layer->record_row()); }

// One step, x [I], from states [states, padded H] to others. The record [padded H / 4, slots, 4] is the cell's
// (recurrent/cells/).
PYRNN_EXPORT(step)
void step(const Layer<float>* layer, const float* x, const float* before, float* after, float* record) {
  const Rows rows(1, 1, nullptr, nullptr, 0, 0, false);
  const Places places(rows, 1, 1, 1, 1, 1, 0);
  Watch watch;
  Run<float> run;
  run.cell = &layer->cell, run.rows = &rows, run.size = layer->size, run.weights = layer->packed;
  run.end = 1, run.keep = true, run.watch = &watch;
  run.one = run.states = run.records = &places;
  run.x = {x, 0, 0};
  for (int k = 0; k < layer->cell.states; ++k)
    run.before[std::size_t(k)] = before + k * layer->Hp, run.state[std::size_t(k)] = after + k * layer->Hp;
  run.record = record, run.record_row = layer->record_row();
  layer->cell.loop->forward(run, 0);
}

// y [M,O] = x [M,I] weight^T + bias
PYRNN_EXPORT(linear)
void linear(int M, int I, int O, const float* x, const float* weight, const float* bias, float* y) {
  Linear<float> map;
  map.M = M, map.I = I, map.O = O, map.weight = weight, map.bias = bias, map.x = x, map.x_row = I;
  linear_forward(linear_kernels, map, y);
}

// out [heads, S, Ev] of queries, keys and values that lie `row` apart, as one projection leaves them: query and key
// [S, heads or kv_heads, E]. value [kv_heads, S, Ev] as value_head and value_row say.
PYRNN_EXPORT(attend)
void attend(int S, int heads, int kv_heads, int E, int Ev, int row, const float* query, const float* key,
            const float* value, int value_head, int value_row, float scale, int causal, float* out) {
  const Attention<float>::Place place{0, 0, 0, 0, -S, causal ? 0 : S};
  Attention<float> a;
  a.Hk = kv_heads, a.G = heads / kv_heads, a.S = a.K = S, a.E = E, a.Ev = Ev;
  a.query = query, a.key = key, a.value = value;
  a.query_head = a.key_head = E, a.query_row = a.key_row = row, a.value_head = value_head, a.value_row = value_row;
  a.places = &place, a.right = causal ? 0 : -1, a.scale = scale;
  const Buffer<float> stats(2 * heads * S);
  attention_forward(attention_kernels, a, out, stats.get());
}

// What weights [n,n] and a state [n] of bytes make of all n units: fields in double.
PYRNN_EXPORT(fields) void fields(int n, const float* weights, const std::int8_t* state, double* out) {
  hopfield_fields(hopfield_kernels, weights, n, 1, state, out);
}
