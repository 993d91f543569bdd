// A convolution over time as its kernel (kernel.hpp, compiled per instruction set) is given it by the driver: products
// of windows with panels. The window of a step of y is the K * C numbers of x that it reads, which lie side by side
// where there is no dilation, so that they are a row of a product as they stand.
//
// The gradient of x is such a product too, of windows of dy with the weights turned round. Where the stride is s, s
// steps of it are one row of outputs; with a dilation, s - 1 zeros are thought between the steps of dy instead.
#pragma once

#include "base/memory.hpp"
#include "base/steps.hpp"

namespace pyrnn {

// Whether so many channels are copied by a move or two: then a gathered step is as cheap as one that lies where it
// should.
constexpr bool one_piece(i64 channels) { return channels == 4 || channels == 8; }

inline constexpr i64 convolution_block = 256;  // windows whose share of a weight gradient is summed before it is added

// Channels of x and of y, kernel positions and so on.
struct ConvolutionSizes {
  i64 C = 1, O = 1, K = 1, groups = 1, stride = 1, dilation = 1;
  i64 reach() const { return dilation * (K - 1); }  // steps between the first and the last of a window
  i64 inputs() const { return C / groups; }         // channels of a group
  i64 outputs() const { return O / groups; }
  // One channel in and out for each group, and not few: loops run along the channels.
  bool by_channel() const { return groups >= 8 && C == groups && O == groups; }
  // How many windows there are in so many steps, with `zeros` more around them.
  i64 count(i64 steps, i64 zeros) const {
    const i64 first = steps + zeros - reach() - 1;
    return steps == 0 || first < 0 ? 0 : first / stride + 1;
  }
  // Of the way back: dx comes in periods of so many steps.
  i64 period() const { return dilation == 1 && !by_channel() ? stride : 1; }
};

// Steps [begin, end) of each period of dx, which are those that as many of the K positions reach: first + i * period,
// 0 <= i < K, for the step `first`.
struct BackPart {
  i64 begin = 0, end = 1, K = 1;
  i64 steps() const { return end - begin; }
};

// Windows of row n from window u on, as many as lie before those of the next stretch.
struct Stretch {
  i64 first, n, u;  // `first`: how many windows lie before
};

// Windows of N sequences: window u of a row begins at the position first + u * stride, and its K positions lie
// `dilation` apart. Step t of `from` is at the position t * every; all other positions hold zeros, and so do those
// behind the row's length.
template <class T> struct Windows {
  Steps<const T> from;           // [.., N, groups * width]
  const i64* lengths = nullptr;  // [N]
  i64 every = 1, groups = 1, width = 1, K = 1, dilation = 1, stride = 1, first = 0;
  // Which of them are asked for, in the order of the rows of the product; behind the last stretch stands the end.
  const Stretch* stretches = nullptr;
  i64 count = 0;  // of stretches
};

// y[n, u] = start + window[n, u] panels, group by group. A row of outputs is `steps` steps of `to`, which begin at step
// u * period - shift; what does not lie within a row's length is left out.
template <class T> struct WindowProduct {
  Windows<T> windows;
  const T *panels = nullptr, *start = nullptr;  // [groups][outputs / L][K * width][L], [groups][outputs, padded]
  i64 start_group = 0;                          // the distance between two groups of start, which may share one
  Steps<T> to;
  const i64* lengths = nullptr;  // [N], of `to`
  i64 outputs = 1, steps = 1, period = 1, shift = 0;
  bool by_channel = false;  // panels [K][groups, padded], start [groups, padded]; width is 1
  bool by_step = false;     // lanes are windows, of which there are many; outputs are at most few_outputs
};

// The window of a row of the product, and whether it is where it lies in the sequence or side by side.
struct Window {
  i64 n, u;
  bool in_place;
};

// What a thread works with on `rows` rows at a time.
template <class T> struct ConvolutionScratch {
  // Windows of `numbers` numbers; for weight gradients, so many columns and outputs.
  ConvolutionScratch(Carver& from, i64 rows, i64 numbers, i64 columns, i64 outputs)
      : rows(rows),
        memory(from.take<T>(rows * numbers + slack)),
        at(from.take<const T*>(rows)),
        to(from.take<T*>(rows)),
        windows(from.take<Window>(rows)),
        columns(from.take<T>(columns * convolution_block)),
        dy(from.take<T>(outputs * convolution_block)) {}
  static constexpr i64 slack = 128;  // that is read for nothing behind the last window
  i64 rows;                          // a multiple of 16
  T* memory;                         // [rows, numbers of a window]
  const T** at;                      // the windows
  T** to;                            // and what is made of them
  Window* windows;
  T* columns;  // [convolution_block, columns]
  T* dy;       // [convolution_block, outputs]
};

template <class T> struct ConvolutionKernels {
  int lanes, columns, few_outputs;  // columns: of a ConvolutionScratch
  // The weights (O, C / groups, K) for y, and for dx.
  void (*pack)(const ConvolutionSizes&, const T* weight, T* panels, int part, int parts);
  void (*pack_back)(const ConvolutionSizes&, BackPart, const T* weight, T* panels, int part, int parts);
  // [steps,N,C] as it lies there to where it shall lie, for few channels.
  void (*turn)(Steps<const T> from, Steps<T> to, i64 steps, i64 N, i64 C, int part, int parts);
  void (*multiply)(const WindowProduct<T>&, const ConvolutionScratch<T>&, i64 begin, i64 end);
  // Adds to sums [O][K * width, padded], or [K][groups, padded], and to dbias [O] or null, the share of rows
  // [begin, end) in the gradients of a part of the weights. `begin` is a multiple of convolution_block.
  void (*weight_grads)(const WindowProduct<T>&, Steps<const T> dy, T* sums, T* dbias, const ConvolutionScratch<T>&,
                       i64 begin, i64 end, int part, int parts);
};

}  // namespace pyrnn
