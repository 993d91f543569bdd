// What the time loop and a cell agree upon: a step is a list of stages, on one register of units at a time.
//
// A stage is: a product with panels of weights, added to the record where bias and input product already lie; norms,
// over all units of a row; then equations. Before a product that reads other units' numbers and before norms the
// threads of a team meet. Going back, stages are taken in reverse: a stage's equations turn the record into gradients
// of the pre-activations (of what norms have made of these, which go back next), from which the transposed panels make
// the gradient of what its product had read.
//
// A cell declares
//   gates         blocks of H rows in its weights
//   slots         vectors of its record: those that products fill, those of the equations, then `back_slots` (0 where
//                 it names none) of the way back alone
//   states        of which the first is the output; the others are H wide
//   x_gates       the gates of the input product, whose results lie in slots from `x_first` on
//   unit_weights  numbers per unit, `p` of a Step, in the order of csrc/bindings/cells.cpp; unit_grads adds a step's
//                 share of their gradients
//   Stages        a std::tuple of its stages
// and a stage
//   product       what its product reads
//   gates         those of its product, at most `most_vectors` as of x_gates, of an inner one a single gate; its
//                 results lie in slots from `first` on, and bias_hh is theirs
//   norms         if any: slots that are normalised before the equations, see Norm
//   projects      its units are the P outputs, which have a record of their own (one slot, weight_hr)
//   sets, reads   the states it makes, and those before the step that it looks at, as bits
//   forward       a Step: from pre-activations `a` and `before` to the record, `after` of the states it sets, `inner`
//   backward      from the record, `before`, `after`, and `d` of the states it sets or `inner` (then a gradient) to the
//                 gradients of the pre-activations in `a`, and `d_before` of the states it sets or reads. `d_before` of
//                 a state that a later stage sets holds that one's share, and else 0. What an earlier stage needs of a
//                 slot in which gradients lie by then, or has to add to its own, goes there by one of `back_slots`
// The first stage alone may have a product of the output, the last one alone one of `inner`.
#pragma once

#include <array>

#include "base/panels.hpp"
#include "recurrent/contract.hpp"

namespace pyrnn::PYRNN_ISA {

// Of nothing; of the output of the step before, by all units; of what the stage before left as `inner`.
enum class Product { none, output, inner };

constexpr unsigned bit(int state) { return 1u << state; }

// The numbers of all units of a row in `count` slots from `first` on become of mean 0 and variance 1:
// n = (v - mean) / sqrt(variance + eps), the variance being the mean of the squares. Going back the equations leave the
// gradients of n in as many slots from `back` on, which become those of v. n stays where it is. Of the slots that
// products fill, which begin the record, all are normalised or none, with one distance to `back`.
struct Norm {
  int first, count, back;
};

template <class T, int states> struct Step {
  Step(Vec<T>* record, const Vec<T>* of_units, const CellOptions& options) : a(record), p(of_units), options(options) {}
  Vec<T>* const a;
  const Vec<T>* const p;
  const CellOptions& options;
  Vec<T> before[states], after[states];
  Vec<T> d[states], d_before[states];
  Vec<T> inner;
};

}  // namespace pyrnn::PYRNN_ISA
