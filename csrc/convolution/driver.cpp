// What threads work on: blocks of windows; for weight gradients, parts of the weights.
#include "convolution/driver.hpp"

#include <algorithm>
#include <initializer_list>
#include <new>

#include "base/threads.hpp"

namespace pyrnn {

namespace {

// Windows that a thread gathers at a time: so many numbers, but not fewer windows, as each of these blocks reads all
// weights once.
constexpr i64 gathered_numbers = 1 << 17, least_windows = 24, most_windows = 1 << 10;

// How many steps each row has of x and of y.
template <class T> struct Lengths {
  explicit Lengths(const Convolution<T>& c) : x(std::size_t(c.N), c.steps) {
    if (c.lengths) std::copy_n(c.lengths, c.N, x.begin());
    for (const i64 length : x) y.push_back(c.size.count(length, c.before + c.after));
  }
  std::vector<i64> x, y;
};

// The windows [begin, begin + counts[n]) of all rows in an order in which what is read together lies together: so many
// steps of all rows, then the next ones. It depends on sizes alone, as sums over windows do.
constexpr i64 numbers_together = 1 << 16;

std::vector<Stretch> stretches_of(const std::vector<i64>& counts, i64 begin, i64 numbers_apart) {
  const i64 N = i64(counts.size()), most = N ? *std::max_element(counts.begin(), counts.end()) : 0;
  const i64 together =
      std::max<i64>(numbers_together / (std::min(numbers_apart, numbers_together) * std::max<i64>(N, 1)), 32);
  std::vector<Stretch> stretches;
  i64 first = 0;
  for (i64 u = 0; u < most; u += together)
    for (i64 n = 0; n < N; ++n)
      if (const i64 count = std::min(together, counts[std::size_t(n)] - u); count > 0) {
        stretches.push_back({first, n, begin + u});
        first += count;
      }
  stretches.push_back({first, 0, 0});
  return stretches;
}

template <class T> void ask_for(const std::vector<Stretch>& stretches, Windows<T>& w) {
  w.stretches = stretches.data(), w.count = i64(stretches.size()) - 1;
}

template <class T> struct Memory {
  Buffer<char> buffer;
  std::vector<ConvolutionScratch<T>> of_thread;
  Memory(int threads, i64 rows, i64 numbers, i64 columns, i64 outputs) {
    buffer = laid_out([&](Carver& from) {
      of_thread.clear();
      for (int thread = 0; thread < threads; ++thread) of_thread.emplace_back(from, rows, numbers, columns, outputs);
    });
  }
};

// Sequences of few channels whose steps lie apart, none of them one piece, are worked on row by row: a copy, which is
// the caller's again in the end where they are written.
template <class T> class RowByRow {
 public:
  RowByRow(const ConvolutionKernels<T>& k, i64 steps, i64 N, i64 C, i64 step)
      : k_(k),
        steps_(steps),
        N_(N),
        C_(C),
        memory_(step != C && C < k.lanes && !one_piece(C) && N > 1 ? steps * N * C : 0) {}
  Steps<const T> read(Steps<const T> from) const {
    if (!memory_.get()) return from;
    turn(from, mine());
    return {memory_.get(), C_, steps_ * C_};
  }
  Steps<T> write(Steps<T> to) const { return memory_.get() ? mine() : to; }
  void finish(Steps<T> to) const {
    if (memory_.get()) turn({memory_.get(), C_, steps_ * C_}, to);
  }

 private:
  Steps<T> mine() const { return {memory_.get(), C_, steps_ * C_}; }
  void turn(Steps<const T> from, Steps<T> to) const {
    Team team(4 * steps_ * N_ * C_);
    in_parts(team, [&](int part, int parts) { k_.turn(from, to, steps_, N_, C_, part, parts); });
  }
  const ConvolutionKernels<T>& k_;
  const i64 steps_, N_, C_;
  const Buffer<T> memory_;
};

// Numbers of a window that a thread gathers at once.
template <class T> i64 window_numbers(const WindowProduct<T>& p) {
  return p.windows.K * (p.by_channel ? p.windows.groups : p.windows.width);
}

template <class T> i64 windows_at_once(const WindowProduct<T>& p, i64 most) {
  const i64 fit = gathered_numbers / window_numbers(p);
  return round_up(std::clamp(fit, least_windows, std::clamp(most, least_windows, most_windows)), 16);
}

template <class T> i64 work_of(const WindowProduct<T>& p, i64 rows) {
  return rows * p.windows.K * p.windows.width * p.windows.groups * p.outputs;
}

template <class T> void multiply(const ConvolutionKernels<T>& k, WindowProduct<T>& p, Watch& watch) {
  const i64 rows = p.windows.stretches[p.windows.count].first, work = work_of(p, rows);
  p.by_step = !p.by_channel && p.period == 1 && p.outputs <= k.few_outputs && rows >= p.windows.count * 2 * k.lanes;
  Team team(work);
  const Memory<T> memory(team.size(), windows_at_once(p, ceil_div(rows, team.size())), window_numbers(p), 0, 0);
  in_watched_parts(team, work, rows / least_windows, watch, [&](int thread, i64 part, i64 parts) {
    const Slice mine(rows, part, parts);
    k.multiply(p, memory.of_thread[std::size_t(thread)], mine.begin, mine.end);
  });
}

// How many numbers there are; of more than memory can hold, an error.
i64 product_of_sizes(std::initializer_list<i64> sizes) {
  i64 numbers = 1;
  for (const i64 size : sizes)
    if (__builtin_mul_overflow(numbers, size, &numbers) || numbers > i64(1) << 59) throw std::bad_alloc();
  return numbers;
}

// Zeros behind the rows' ends.
template <class T> void clear(Steps<T> to, const std::vector<i64>& lengths, i64 steps, i64 width) {
  for (i64 n = 0; n < i64(lengths.size()); ++n)
    for (i64 t = lengths[std::size_t(n)]; t < steps; ++t) std::fill_n(to.at(t, n), width, T(0));
}

// The windows that y is made of.
template <class T> Windows<T> windows_of(const ConvolutionSizes& s) {
  Windows<T> w;
  w.groups = s.groups, w.width = s.inputs(), w.K = s.K, w.dilation = s.dilation, w.stride = s.stride;
  return w;
}

// And those of all of x.
template <class T>
Windows<T> windows_of(const Convolution<T>& c, Steps<const T> x, const Lengths<T>& lengths,
                      const std::vector<Stretch>& stretches) {
  Windows<T> w = windows_of<T>(c.size);
  w.from = x, w.lengths = lengths.x.data(), w.first = -c.before;
  ask_for(stretches, w);
  return w;
}

template <class T> std::vector<Stretch> all_windows(const Convolution<T>& c, const Lengths<T>& lengths) {
  return stretches_of(lengths.y, 0, c.size.stride * c.size.C);
}

template <class T> WindowProduct<T> product_of(const PackedConvolution<T>& packed, const Windows<T>& windows) {
  WindowProduct<T> p;
  p.windows = windows;
  p.by_channel = packed.size.by_channel();
  p.panels = packed.panels.get(), p.start = packed.start.get();
  p.outputs = packed.size.outputs(), p.start_group = round_up(p.outputs, packed.kernels.lanes);
  return p;
}

}  // namespace

template <class T>
PackedConvolution<T>::PackedConvolution(const ConvolutionKernels<T>& k, const ConvolutionSizes& s, const T* weight,
                                        const T* bias)
    : kernels(k), size(s) {
  const i64 each = s.by_channel() ? s.C : s.outputs(), padded = round_up(each, k.lanes), count = s.O / each;
  panels = Buffer<T>(count * padded * s.inputs() * s.K), start = Buffer<T>(count * padded).zero();
  if (bias)
    for (i64 i = 0; i < count; ++i) std::copy_n(bias + i * each, each, start.get() + i * padded);
  Team team(s.O * s.inputs() * s.K);
  in_parts(team, [&](int part, int parts) { k.pack(s, weight, panels.get(), part, parts); });
}

template <class T> void convolution_forward(const ConvolutionKernels<T>& k, const Convolution<T>& c, Steps<T> y) {
  const PackedConvolution<T> packed(k, c.size, c.weight, c.bias);
  const Lengths<T> lengths(c);
  const std::vector<Stretch> stretches = all_windows(c, lengths);
  const RowByRow<T> x_rows(k, c.steps, c.N, c.size.C, c.x.step), y_rows(k, c.counted(), c.N, c.size.O, y.step);
  WindowProduct<T> p = product_of(packed, windows_of(c, x_rows.read(c.x), lengths, stretches));
  p.to = y_rows.write(y), p.lengths = lengths.y.data();
  clear(p.to, lengths.y, c.counted(), c.size.O);
  Watch watch;
  multiply(k, p, watch);
  y_rows.finish(y);
}

namespace {

template <class T>
void input_grads(const ConvolutionKernels<T>& k, const Convolution<T>& c, const Lengths<T>& lengths, BackPart back,
                 Steps<const T> dy, Steps<T> dx, Watch& watch) {
  const ConvolutionSizes& s = c.size;
  const i64 period = s.period();
  WindowProduct<T> p;
  p.by_channel = s.by_channel();
  p.outputs = back.steps() * s.inputs(), p.steps = back.steps(), p.period = period, p.shift = c.before - back.begin;
  const i64 padded = round_up(p.by_channel ? s.C : p.outputs, k.lanes);
  const Buffer<T> panels((p.by_channel ? 1 : s.groups) * padded * back.K * s.outputs());
  const Buffer<T> zeros = Buffer<T>(padded).zero();
  {
    Team team(s.O * s.inputs() * s.K);
    in_parts(team, [&](int part, int parts) { k.pack_back(s, back, c.weight, panels.get(), part, parts); });
  }
  std::vector<i64> counts;
  for (const i64 length : lengths.x)
    counts.push_back(length ? ceil_div(length + c.before, period) - c.before / period : 0);
  const std::vector<Stretch> stretches = stretches_of(counts, c.before / period, s.O);
  Windows<T>& w = p.windows;
  w.from = dy, w.lengths = lengths.y.data(), w.every = s.stride / period;
  w.groups = s.groups, w.width = s.outputs(), w.K = back.K, w.dilation = s.dilation;
  w.first = -(back.K - 1) * s.dilation;
  ask_for(stretches, w);
  p.panels = panels.get(), p.start = zeros.get();
  p.to = dx, p.lengths = lengths.x.data();
  multiply(k, p, watch);
}

template <class T>
void weight_grads(const ConvolutionKernels<T>& k, const Convolution<T>& c, Steps<const T> x, const Lengths<T>& lengths,
                  Steps<const T> dy, T* dweight, T* dbias, Watch& watch) {
  const ConvolutionSizes& s = c.size;
  const std::vector<Stretch> stretches = all_windows(c, lengths);
  WindowProduct<T> p;
  p.windows = windows_of(c, x, lengths, stretches);
  p.by_channel = s.by_channel(), p.outputs = s.outputs();
  // [O][position][channel, padded], or by channel [position][channel, padded]
  const i64 numbers = s.K * s.inputs(), row = round_up(p.by_channel ? s.C : numbers, k.lanes);
  const Buffer<T> sums((p.by_channel ? s.K : s.O) * row), bias = Buffer<T>(s.O).zero();
  const i64 count = stretches.back().first, work = work_of(p, 1);
  Team team(work_of(p, count));
  const Memory<T> memory(team.size(), convolution_block, window_numbers(p), k.columns, s.O + 8);
  in_slices(team, sums.size(), [&](Slice mine) { std::fill_n(sums.get() + mine.begin, mine.size(), T(0)); });
  const i64 often =
      std::max<i64>(Watch::work_between * team.size() / (work * convolution_block), 1) * convolution_block;
  for (i64 m = 0; m < count && !watch.ended(); m += often) {
    watch.poll();
    in_parts(team, [&](int part, int parts) {
      k.weight_grads(p, dy, sums.get(), dbias ? bias.get() : nullptr, memory.of_thread[std::size_t(part)], m,
                     std::min(m + often, count), part, parts);
    });
  }
  watch.check();
  in_slices(team, s.O, [&](Slice mine) {
    for (i64 o = mine.begin; o < mine.end; ++o)
      for (i64 c = 0; c < s.inputs(); ++c) {
        const T* from = p.by_channel ? sums.get() + o : sums.get() + o * row + c;
        const i64 step = p.by_channel ? row : s.inputs();
        T* to = dweight + (o * s.inputs() + c) * s.K;
        for (i64 k = 0; k < s.K; ++k) to[k] += from[k * step];
      }
  });
  if (dbias)
    for (i64 o = 0; o < s.O; ++o) dbias[o] += bias.get()[o];
}

}  // namespace

template <class T>
void convolution_backward(const ConvolutionKernels<T>& k, const Convolution<T>& c, Steps<const T> dy, Steps<T> dx,
                          T* dweight, T* dbias) {
  const Lengths<T> lengths(c);
  Watch watch;
  const RowByRow<T> x_rows(k, c.steps, c.N, c.size.C, c.x.step), dx_rows(k, c.steps, c.N, c.size.C, dx.step);
  const RowByRow<T> dy_rows(k, c.counted(), c.N, c.size.O, dy.step);
  const Steps<T> to = dx_rows.write(dx);
  const Steps<const T> from = dy_rows.read(dy);
  // The first steps of a period are reached by `most` positions, the others by one less.
  const i64 period = c.size.period(), most = ceil_div(c.size.K, period), first = c.size.K - (most - 1) * period;
  clear(to, most > 1 || first == period ? lengths.x : std::vector<i64>(std::size_t(c.N), 0), c.steps, c.size.C);
  input_grads(k, c, lengths, {0, first, most}, from, to, watch);
  if (most > 1 && first < period) input_grads(k, c, lengths, {first, period, most - 1}, from, to, watch);
  dx_rows.finish(dx);
  weight_grads(k, c, x_rows.read(c.x), lengths, from, dweight, dbias, watch);
}

template <class T>
ConvolutionStream<T>::ConvolutionStream(Packed packed, i64 batch, i64 before)
    : packed_(std::move(packed)),
      N_(batch),
      first_due_(size().reach() - before + 1),
      due_(first_due_),
      capacity_(size().reach() + std::max<i64>(size().reach(), 16)),
      end_(size().reach()),
      past_(Buffer<T>(product_of_sizes({batch, capacity_, size().C})).zero()),
      ends_(std::size_t(batch)),
      ones_(std::size_t(batch), 1),
      stretches_(stretches_of(ones_, 0, 1)) {
  const int parts = threads_worth(size().groups == 1 ? step_work() : 0);
  memory_ = laid_out([&](Carver& from) {
    scratch_.clear();
    for (int part = 0; part < parts; ++part)
      scratch_.emplace_back(from, round_up(std::min<i64>(batch, least_windows), 16), size().K * size().C, 0, 0);
  });
}

template <class T> ConvolutionStream<T> ConvolutionStream<T>::taken(const std::vector<i64>& rows) const {
  const i64 C = size().C, reach = size().reach();
  ConvolutionStream other(packed_, i64(rows.size()), reach + 1 - first_due_);
  for (std::size_t n = 0; n < rows.size(); ++n)
    std::copy_n(row(rows[n]) + (end_ - reach) * C, reach * C, other.row(i64(n)));
  other.due_ = due_;
  return other;
}

template <class T> void ConvolutionStream<T>::step(const T* x, i64 x_row, T* y) {
  const i64 C = size().C, reach = size().reach();
  if (end_ == capacity_) {
    for (i64 n = 0; n < N_; ++n) std::copy_n(row(n) + (end_ - reach) * C, reach * C, row(n));
    end_ = reach;
  }
  for (i64 n = 0; n < N_; ++n) std::copy_n(x + n * x_row, C, row(n) + end_ * C);
  ++end_;
  if (--due_ > 0) return;
  due_ = size().stride;
  std::fill(ends_.begin(), ends_.end(), end_);
  WindowProduct<T> p = product_of(*packed_, windows_of<T>(size()));
  p.windows.from = {row(0), C, capacity_ * C}, p.windows.lengths = ends_.data(), p.windows.first = end_ - 1 - reach;
  ask_for(stretches_, p.windows);
  p.to = {y, 0, size().O}, p.lengths = ones_.data();
  const ConvolutionKernels<T>& k = packed_->kernels;
  if (scratch_.size() == 1) return k.multiply(p, scratch_[0], 0, N_);
  Team team(step_work(), int(scratch_.size()));
  in_parts(team, [&](int part, int parts) {
    const Slice mine(ceil_div(p.outputs, k.lanes), part, parts);
    const i64 first = mine.begin * k.lanes;
    WindowProduct<T> own = p;
    own.outputs = std::min(mine.end * k.lanes, p.outputs) - first;
    own.panels += first * size().K * size().C, own.start += first, own.to.data += first;
    if (own.outputs > 0) k.multiply(own, scratch_[std::size_t(part)], 0, N_);
  });
}

// Multiply-adds.
template <class T> i64 ConvolutionStream<T>::step_work() const {
  return std::max(N_, rows_of_reading) * size().K * size().C * size().outputs();
}

template <class T> void ConvolutionStream<T>::run(i64 steps, Steps<const T> x, Steps<T> y) {
  const i64 C = size().C, reach = size().reach(), count = counted(steps, due_);
  const Buffer<T> all(N_ * (reach + steps) * C);  // what is kept and the new steps, row by row
  for (i64 n = 0; n < N_; ++n) {
    T* const to = all.get() + n * (reach + steps) * C;
    std::copy_n(row(n) + (end_ - reach) * C, reach * C, to);
    for (i64 t = 0; t < steps; ++t) std::copy_n(x.at(t, n), C, to + (reach + t) * C);
  }
  const std::vector<i64> lengths(std::size_t(N_), reach + steps), counts(std::size_t(N_), count);
  const std::vector<Stretch> stretches = stretches_of(counts, 0, C);
  WindowProduct<T> p = product_of(*packed_, windows_of<T>(size()));
  p.windows.from = {all.get(), C, (reach + steps) * C}, p.windows.lengths = lengths.data();
  p.windows.first = due_ - 1;
  ask_for(stretches, p.windows);
  p.to = y, p.lengths = counts.data();
  Watch watch;
  multiply(packed_->kernels, p, watch);
  for (i64 n = 0; n < N_; ++n) std::copy_n(all.get() + (n * (reach + steps) + steps) * C, reach * C, row(n));
  end_ = reach, due_ += count * size().stride - steps;
}

template <class T> void ConvolutionStream<T>::get_past(T* past) const {
  const i64 C = size().C, reach = size().reach();
  for (i64 t = 0; t < reach; ++t)
    for (i64 n = 0; n < N_; ++n) std::copy_n(row(n) + (end_ - reach + t) * C, C, past + (t * N_ + n) * C);
}

template <class T> void ConvolutionStream<T>::set_past(const T* past, i64 due) {
  const i64 C = size().C, reach = size().reach();
  for (i64 t = 0; t < reach; ++t)
    for (i64 n = 0; n < N_; ++n) std::copy_n(past + (t * N_ + n) * C, C, row(n) + t * C);
  end_ = reach, due_ = due;
}

template <class T> void ConvolutionStream<T>::forget(i64 n) {
  std::fill_n(row(n) + (end_ - size().reach()) * size().C, size().reach() * size().C, T(0));
}

template <class T> void ConvolutionStream<T>::begin_anew() {
  for (i64 n = 0; n < N_; ++n) forget(n);
  due_ = first_due_;
}

template struct PackedConvolution<float>;
template struct PackedConvolution<double>;
template class ConvolutionStream<float>;
template class ConvolutionStream<double>;
template void convolution_forward(const ConvolutionKernels<float>&, const Convolution<float>&, Steps<float>);
template void convolution_forward(const ConvolutionKernels<double>&, const Convolution<double>&, Steps<double>);
template void convolution_backward(const ConvolutionKernels<float>&, const Convolution<float>&, Steps<const float>,
                                   Steps<float>, float*, float*);
template void convolution_backward(const ConvolutionKernels<double>&, const Convolution<double>&, Steps<const double>,
                                   Steps<double>, double*, double*);

}  // namespace pyrnn
