// The simple recurrent network (Elman 1990): h' = act(W x + b + R h + d). Equations only, on vectors of units.
#pragma once

#include "../panels.hpp"

namespace pyrnn::PYRNN_ISA {

enum class Nonlinearity { tanh, relu, sigmoid };

template <Nonlinearity act> struct Rnn {
  static constexpr int gates = 1, slots = 1;
  static constexpr int x_first = 0, h_first = 0;
  static constexpr std::array<int, 1> x_gates{0};
  static constexpr std::array<int, 1> h_gates{0};
  static constexpr int unit_weights = 0;
  static constexpr bool cell_state = false, reads_hidden = false;

  // record: h'
  template <class T> static void forward(Vec<T>* a, const Vec<T>*, Vec<T>, Vec<T>&, Vec<T>& h) {
    if constexpr (act == Nonlinearity::tanh) a[0] = tanh<T>(a[0]);
    if constexpr (act == Nonlinearity::relu) a[0] = select<T>(a[0] < splat(T(0)), Vec<T>{}, a[0]);
    if constexpr (act == Nonlinearity::sigmoid) a[0] = sigmoid<T>(a[0]);
    h = a[0];
  }

  template <class T>
  static void backward(Vec<T>* a, const Vec<T>*, Vec<T>, Vec<T>, Vec<T>, Vec<T> dh, Vec<T>&, Vec<T>&) {
    const Vec<T> h = a[0], one = splat(T(1));
    if constexpr (act == Nonlinearity::tanh) a[0] = dh * (one - h * h);
    if constexpr (act == Nonlinearity::relu) a[0] = select<T>(h <= Vec<T>{}, Vec<T>{}, dh);  // NaN lets dh through
    if constexpr (act == Nonlinearity::sigmoid) a[0] = dh * (h * (one - h));
  }
};

}  // namespace pyrnn::PYRNN_ISA
