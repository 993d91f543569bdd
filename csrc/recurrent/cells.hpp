// The list of cells: a kind for each form whose equations are compiled by themselves, and, where kernels are, these.
#pragma once

namespace pyrnn {

enum class CellKind {
  rnn_tanh,
  rnn_relu,
  rnn_sigmoid,
  lstm,
  lstm_peephole,
  lstm_projected,
  lstm_peephole_projected,
  lstm_activated,
  lstm_activated_projected,
  gru_reset_after,
  gru_reset_before,
  gru_reset_after_activated,
  gru_reset_before_activated,
  indrnn_tanh,
  indrnn_relu,
  indrnn_sigmoid,
  mingru,
  minlstm,
  slstm,
  layernormlstm,
  count
};

}  // namespace pyrnn

#ifdef PYRNN_ISA
#include "recurrent/cells/gru.hpp"
#include "recurrent/cells/indrnn.hpp"
#include "recurrent/cells/layernormlstm.hpp"
#include "recurrent/cells/lstm.hpp"
#include "recurrent/cells/mingru.hpp"
#include "recurrent/cells/minlstm.hpp"
#include "recurrent/cells/rnn.hpp"
#include "recurrent/cells/slstm.hpp"
#include "recurrent/equations.hpp"

namespace pyrnn::PYRNN_ISA {

template <CellKind kind> struct CellOf {
  static_assert(kind == CellKind::count, "a kind without equations: it needs a line below");
};
template <> struct CellOf<CellKind::rnn_tanh> : Rnn<Nonlinearity::tanh> {};
template <> struct CellOf<CellKind::rnn_relu> : Rnn<Nonlinearity::relu> {};
template <> struct CellOf<CellKind::rnn_sigmoid> : Rnn<Nonlinearity::sigmoid> {};
template <> struct CellOf<CellKind::lstm> : Lstm<false, false> {};
template <> struct CellOf<CellKind::lstm_peephole> : Lstm<true, false> {};
template <> struct CellOf<CellKind::lstm_projected> : Lstm<false, true> {};
template <> struct CellOf<CellKind::lstm_peephole_projected> : Lstm<true, true> {};
template <> struct CellOf<CellKind::lstm_activated> : Lstm<true, false, Activated> {};
template <> struct CellOf<CellKind::lstm_activated_projected> : Lstm<true, true, Activated> {};
template <> struct CellOf<CellKind::gru_reset_after> : GruResetAfter<> {};
template <> struct CellOf<CellKind::gru_reset_before> : GruResetBefore<> {};
template <> struct CellOf<CellKind::gru_reset_after_activated> : GruResetAfter<Activated> {};
template <> struct CellOf<CellKind::gru_reset_before_activated> : GruResetBefore<Activated> {};
template <> struct CellOf<CellKind::indrnn_tanh> : IndRnn<Nonlinearity::tanh> {};
template <> struct CellOf<CellKind::indrnn_relu> : IndRnn<Nonlinearity::relu> {};
template <> struct CellOf<CellKind::indrnn_sigmoid> : IndRnn<Nonlinearity::sigmoid> {};
template <> struct CellOf<CellKind::mingru> : MinGru {};
template <> struct CellOf<CellKind::minlstm> : MinLstm {};
template <> struct CellOf<CellKind::slstm> : Slstm {};
template <> struct CellOf<CellKind::layernormlstm> : LayerNormLstm {};

template <class T>
inline constexpr auto cells = []<int... kind>(std::integer_sequence<int, kind...>) {
  return std::array<const CellKernels<T>*, sizeof...(kind)>{&Equations<T, CellOf<CellKind(kind)>>::compiled...};
}(std::make_integer_sequence<int, int(CellKind::count)>{});

}  // namespace pyrnn::PYRNN_ISA
#endif
