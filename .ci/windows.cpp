// What the kernels make of some numbers, as a line of bits for each, on the instruction set that PYRNN_ISA names: see
// windows, which compares two systems.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "associative/driver.hpp"
#include "dispatch.hpp"
#include "linear/driver.hpp"
#include "recurrent/driver.hpp"

using namespace pyrnn;

template <class T> std::vector<T> numbers(i64 count) {
  static std::mt19937 random(1);
  std::vector<T> made(static_cast<std::size_t>(count));
  for (T& number : made) number = T(i64(random() % 2001) - 1000) / T(700);
  return made;
}

template <class T> void show(const char* what, const std::vector<T>& made) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const T& number : made) {
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &number, sizeof(T));
    for (const unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  }
  std::printf("%s %s of %zu bytes: %016llx\n", instruction_set().name, what, sizeof(T), (unsigned long long)hash);
}

template <class T> void recurrent(const char* name, CellKind kind, i64 gates) {
  const i64 steps = 20, rows = 5, I = 37, H = 150;
  const CellKernels<T>& cell = *kernels<T>().cells[int(kind)];
  const auto ih = numbers<T>(gates * H * I), hh = numbers<T>(gates * H * H), b = numbers<T>(gates * H);
  Weights<const T> weights;
  weights.ih = ih.data(), weights.hh = hh.data(), weights.b_ih = weights.b_hh = b.data();
  const auto x = numbers<T>(steps * rows * I), dy = numbers<T>(steps * rows * H);
  const i64 lengths[] = {20, 3, 17, 20, 9};
  const auto shared = std::make_shared<Rows>(steps, rows, lengths, nullptr, 0, 0, false);
  std::vector<T> y(dy.size()), dx(x.size()), dih(ih.size()), dhh(hh.size()), db(2 * b.size());
  Recording<T> recording(Layer<T>(cell, {I, H, H}, weights), shared, {{x.data(), rows * I, I}, {}, 0}, 0, false);
  recording.forward({}, {y.data(), rows * H, H}, {});
  Weights<T> grads;
  grads.ih = dih.data(), grads.hh = dhh.data(), grads.b_ih = db.data(), grads.b_hh = db.data() + b.size();
  recording.backward({dy.data(), rows * H, H}, {}, {dx.data(), rows * I, I}, {}, {&grads, 1});
  show(name, y), show(name, dx), show(name, dih), show(name, dhh), show(name, db);
}

template <class T> void all() {
  recurrent<T>("rnn", CellKind::rnn_tanh, 1);
  recurrent<T>("lstm", CellKind::lstm, 4);
  recurrent<T>("gru", CellKind::gru_reset_after, 3);
  recurrent<T>("slstm", CellKind::slstm, 4);

  const i64 M = 70, I = 300, O = 130;
  const auto x = numbers<T>(M * I), weight = numbers<T>(O * I), bias = numbers<T>(O);
  Linear<T> linear;
  linear.M = M, linear.I = I, linear.O = O, linear.weight = weight.data(), linear.bias = bias.data();
  linear.x = x.data(), linear.x_row = I;
  std::vector<T> y(M * O);
  linear_forward(kernels<T>().linear, linear, y.data());
  show("linear", y);

  Attention<T> attention;
  attention.B = attention.Hk = attention.G = 1, attention.S = attention.K = 200, attention.E = attention.Ev = 40;
  const auto q = numbers<T>(200 * 40), k = numbers<T>(200 * 40), v = numbers<T>(200 * 40);
  attention.query = q.data(), attention.key = k.data(), attention.value = v.data();
  attention.query_row = attention.key_row = attention.value_row = 40, attention.scale = T(0.15);
  const typename Attention<T>::Place place{0, 0, 0, 0, -1000, 0};
  attention.places = &place, attention.right = 0;
  std::vector<T> out(q.size()), stats(2 * 200);
  attention_forward(kernels<T>().attention, attention, out.data(), stats.data());
  show("attention", out);

  const i64 n = 101;
  auto weights = numbers<T>(n * n);
  std::vector<std::int8_t> state(n, 1);
  std::vector<double> fields(n), threshold(n);
  std::vector<i64> order(n);
  for (i64 i = 0; i < n; ++i) order[std::size_t(i)] = (i * 7) % n;
  hopfield_fields(kernels<T>().hopfield, weights.data(), n, 1, state.data(), fields.data());
  i64 flips = 0;
  const Sweep sweep{n, order.data(), threshold.data(), nullptr, 0, -1};
  hopfield_sweep(kernels<T>().hopfield, weights.data(), sweep, 1, fields.data(), state.data(), &flips);
  show("hopfield", fields), show("hopfield", state);
}

int main() {
  all<float>();
  all<double>();
}
