// Products of windows with panels: a convolution over time, its gradients, and a step of its stream.
//
// Every output is one chain of multiply-adds over the positions of the kernel and, at each, over the channels, in
// ascending order, zeros around the sequence included.
#pragma once

#include <algorithm>

#include "base/panels.hpp"
#include "convolution/contract.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct ConvolutionLoop {
  static constexpr int L = lanes<T>, columns = group_block * L, few_outputs = std::min(4, L / 2);

  // ---- weights

  // To [group][outputs / L][position][channel][lane], or by channel to [position][channel].
  static void pack(const ConvolutionSizes& s, const T* weight, T* panels, int part, int parts) {
    const i64 I = s.inputs(), O = s.outputs(), K = s.K;
    if (s.by_channel()) return pack_by_channel(s, weight, panels, 0, 1, part, parts);
    const i64 panels_each = groups_of<T>(O);
    const Slice mine(s.groups * panels_each, part, parts);
    for (i64 i = mine.begin; i < mine.end; ++i) {
      const i64 first = i % panels_each * L, valid = std::min<i64>(L, O - first);
      const T* source = weight + (i / panels_each * O + first) * I * K;
      T* panel = panels + i * I * K * L;
      for (i64 at = 0; at < I * K; at += L) {  // numbers of an output lie [channel][position]
        const i64 width = std::min<i64>(L, I * K - at);
        Vec<T> block[L];
        load_turned(source + at, I * K, valid, width, block);
        for (i64 j = 0, c = at / K, k = at % K; j < width; ++j) {
          store(panel + (k * I + c) * L, block[j]);
          if (++k == K) k = 0, ++c;
        }
      }
    }
  }

  // To [group][steps * channels / L][position][output][lane]: position i of a window of dy meets, for the step q of a
  // period of dx, the weights of position q + (K - 1 - i) * period.
  static void pack_back(const ConvolutionSizes& s, BackPart back, const T* weight, T* panels, int part, int parts) {
    const i64 I = s.inputs(), O = s.outputs(), period = s.period(), numbers = back.steps() * I;
    if (s.by_channel()) return pack_by_channel(s, weight, panels, s.K - 1, -1, part, parts);
    const i64 panels_each = groups_of<T>(numbers);
    const Slice mine(s.groups * panels_each, part, parts);
    for (i64 i = mine.begin; i < mine.end; ++i) {
      const i64 first = i % panels_each * L, valid = std::min<i64>(L, numbers - first);
      T* panel = panels + i * back.K * O * L;
      if (valid < L) std::fill_n(panel, back.K * O * L, T(0));
      const T* from[L];  // of the first output, the last position
      for (i64 lane = 0; lane < valid; ++lane) {
        const i64 q = back.begin + (first + lane) / I, c = (first + lane) % I;
        from[lane] = weight + (i / panels_each * O * I + c) * s.K + q + (back.K - 1) * period;
      }
      for (i64 o = 0; o < O; ++o)
        for (i64 lane = 0; lane < valid; ++lane)
          for (i64 at = 0; at < back.K; ++at) panel[(at * O + o) * L + lane] = from[lane][o * I * s.K - at * period];
    }
  }

  static void pack_by_channel(const ConvolutionSizes& s, const T* weight, T* panels, i64 first, i64 step, int part,
                              int parts) {
    const i64 row = padded<T>(s.C);
    const Slice mine(row, part, parts);
    for (i64 k = 0; k < s.K; ++k)
      for (i64 c = mine.begin; c < mine.end; ++c)
        panels[k * row + c] = c < s.C ? weight[c * s.K + first + k * step] : T(0);
  }

  // ---- sequences in another order

  // [T,N,C] as it lies there to where it shall lie, steps of part `part`, for few channels: a square of some steps and
  // rows at a time.
  static void turn(Steps<const T> from, Steps<T> to, i64 steps, i64 N, i64 C, int part, int parts) {
    const Slice mine(ceil_div(steps, i64(L)), part, parts);
    for (i64 t = mine.begin * L, end = std::min(mine.end * L, steps); t < end; t += L) {
      const i64 count = std::min<i64>(L, end - t);
      if (C == 1 && from.row == 1 && to.step == 1)
        turn_square(from.at(t, 0), from.step, count, N, to.at(t, 0), to.row);
      else if (C == 1 && from.step == 1 && to.row == 1)
        for (i64 n = 0; n < N; n += L)
          turn_square(from.at(t, n), from.row, std::min<i64>(L, N - n), count, to.at(t, n), to.step);
      else if (C == 2)
        turn_pieces<2>(from, to, t, count, N, C);
      else
        turn_pieces<0>(from, to, t, count, N, C);
    }
  }

  // Known: C, where the compiler is to know it.
  template <int Known> static void turn_pieces(Steps<const T> from, Steps<T> to, i64 t, i64 count, i64 N, i64 C) {
    for (i64 n = 0; n < N; ++n)
      for (i64 k = 0; k < count; ++k)
        if constexpr (Known)
          std::copy_n(from.at(t + k, n), Known, to.at(t + k, n));
        else
          copy(from.at(t + k, n), C, to.at(t + k, n));
  }

  // `rows` rows (at most L) of `width` numbers become columns.
  static void turn_square(const T* from, i64 from_row, i64 rows, i64 width, T* to, i64 to_row) {
    for (i64 k = 0; k < width; k += L) {
      Vec<T> block[L];
      load_turned(from + k, from_row, rows, width - k, block);
      for (i64 i = 0; i < std::min<i64>(L, width - k); ++i) store(to + (k + i) * to_row, block[i], rows);
    }
  }

  // ---- windows

  // Of few numbers as a rule, for which std::copy_n would be a call.
  static void copy(const T* from, i64 n, T* to) {
    i64 i = 0;
    for (; i + L <= n; i += L) store(to + i, load(from + i));
    for (; i < n; ++i) to[i] = from[i];
  }

  // `count` pieces of `width` numbers, `step` apart, side by side.
  static void copy_pieces(const T* from, i64 step, i64 count, i64 width, T* to) {
    const auto known = [&]<int W>() {
      for (i64 i = 0; i < count; ++i) std::copy_n(from + i * step, W, to + i * W);
    };
    static_assert(one_piece(4) && one_piece(8));
    if (width == 4) return known.template operator()<4>();
    if (width == 8) return known.template operator()<8>();
    for (i64 i = 0; i < count; ++i) copy(from + i * step, width, to + i * width);
  }

  // What lies at `count` positions, `apart` from each other, of channels from `channel` on, side by side.
  __attribute__((noinline)) static void copy_positions(const Windows<T>& w, i64 n, i64 channel, i64 width, i64 position,
                                                       i64 apart, i64 count, T* to) {
    const i64 end = (w.lengths[n] - 1) * w.every + 1;  // behind the last position with a step
    const i64 first = std::clamp<i64>(ceil_div(std::max<i64>(-position, 0), apart), 0, count),
              last = std::clamp<i64>(ceil_div(std::max<i64>(end - position, 0), apart), first, count);
    std::fill_n(to, first * width, T(0));
    if (w.every > 1) {
      for (i64 i = first; i < last; ++i) {
        const i64 at = position + i * apart;
        if (at % w.every)
          std::fill_n(to + i * width, width, T(0));
        else
          copy(w.from.at(at / w.every, n) + channel, width, to + i * width);
      }
    } else if (first < last) {
      const T* from = w.from.at(position + first * apart, n) + channel;
      const i64 step = w.from.step * apart;
      if (step == width)
        std::copy_n(from, (last - first) * width, to + first * width);
      else if (width == 1)
        for (i64 i = first; i < last; ++i, from += step) to[i] = *from;
      else
        copy_pieces(from, step, last - first, width, to + first * width);
    }
    std::fill_n(to + last * width, (count - last) * width, T(0));
  }

  // f(n, u0, u1) for the windows that are rows [begin, end) of the product.
  template <class F> static void each_stretch(const Windows<T>& w, i64 begin, i64 end, F f) {
    const Stretch* next = std::upper_bound(w.stretches, w.stretches + w.count, begin,
                                           [](i64 m, const Stretch& s) { return m < s.first; });
    for (i64 m = begin; m < end; ++next) {
      const Stretch& s = next[-1];
      const i64 last = std::min(end, next->first);
      f(s.n, s.u + m - s.first, s.u + last - s.first);
      m = last;
    }
  }

  // Its windows are rows of K * width numbers as they stand.
  static bool dense(const Windows<T>& w, i64 width) { return w.dilation == 1 && w.from.step == width; }

  // Or are to be read as K runs that lie apart: long ones, unless the next windows read them again, and many, which
  // would drive each other out of the cache where they are a power of two apart; or a few short ones that hardly any
  // window reads again, as gathering them would take longer than the ends of short loops.
  static bool runs_in_place(const Windows<T>& w) {
    const bool few_short = w.width >= 4 && w.width < L && w.K <= 8 && w.K <= 2 * w.stride;
    return dense(w, w.width) || few_short || (w.width >= 2 * L && (w.dilation > 1 || w.K <= 4));
  }

  // The same where lanes are channels. Whole registers are read, beyond which there must be something.
  static bool channels_in_place(const Windows<T>& w) {
    return w.groups % L == 0 && (dense(w, w.groups) || w.dilation > 1);
  }

  // Windows [u0, u1) of row n, which are rows of the product from `to` on, gathered side by side from `memory` on:
  // neighbours in one piece where that takes less memory. Returns where the next ones go.
  __attribute__((noinline)) static T* gather(const Windows<T>& w, i64 channel, i64 width, i64 n, i64 u0, i64 u1, i64 to,
                                             const ConvolutionScratch<T>& own, T* memory) {
    const i64 count = u1 - u0, position = w.first + u0 * w.stride, together = (count - 1) * w.stride + w.K;
    const bool whole = w.dilation == 1 && together < count * w.K;
    const i64 apart = whole ? w.stride * width : w.K * width;
    if (whole) copy_positions(w, n, channel, width, position, 1, together, memory);
    for (i64 u = u0; u < u1; ++u, ++to) {
      T* const at = memory + (u - u0) * apart;
      if (!whole) copy_positions(w, n, channel, width, w.first + u * w.stride, w.dilation, w.K, at);
      own.at[to] = at, own.windows[to] = {n, u, false};
    }
    return memory + (whole ? together * width : count * apart);
  }

  // Where the windows of rows [begin, end) are, of channels from `channel` on: in the sequence, if they may be read in
  // place and lie within it, or gathered.
  __attribute__((noinline)) static void find(const Windows<T>& w, i64 channel, i64 width, i64 begin, i64 end,
                                             bool in_place, const ConvolutionScratch<T>& own) {
    const bool apart = !dense(w, width);
    const i64 reach = w.dilation * (w.K - 1);
    T* memory = own.memory;
    i64 to = 0;
    each_stretch(w, begin, end, [&](i64 n, i64 u0, i64 u1) {
      i64 inside = u1, outside = u1;  // windows from the one to the other lie within the sequence
      if (in_place && w.every == 1) {
        const i64 most = w.lengths[n] - 1 - reach - w.first;
        inside = std::clamp(ceil_div(std::max<i64>(-w.first, 0), w.stride), u0, u1);
        outside = most < 0 ? inside : std::clamp(most / w.stride + 1, inside, u1);
      }
      const i64 first = to - u0;
      if (u0 < inside) memory = gather(w, channel, width, n, u0, inside, to, own, memory);
      for (i64 u = inside; u < outside; ++u)
        own.at[first + u] = w.from.at(w.first + u * w.stride, n) + channel, own.windows[first + u] = {n, u, apart};
      if (outside < u1) memory = gather(w, channel, width, n, outside, u1, first + outside, own, memory);
      to += u1 - u0;
    });
  }

  // f(first, last, whether they are in place) for windows that are read in the same way.
  template <class F> static void alike(const Window* windows, i64 count, F f) {
    for (i64 first = 0, last = 0; first < count; first = last) {
      while (last < count && windows[last].in_place == windows[first].in_place) ++last;
      f(first, last, windows[first].in_place);
    }
  }

  // ---- y and dx

  // So many rows of so many groups are one tile: where groups are few, rows make up for the chains, and groups where
  // there is one row.
  static constexpr int tile_rows(int groups) { return std::min(8, std::max(max_rows, max_accumulators / groups)); }
  static constexpr int one_row = 8;

  // Some rows of groups [g0, g1).
  template <bool FromZero, class Rows>
  static void tile(int rows, Rows a, Segments seg, const Panels<T>& p, const T* const* start, T* const* c, i64 g0,
                   i64 g1) {
    const auto whole = [&]<int R, int U>() {
      if (rows != R || g1 - g0 != U) return false;
      tiles<R, U, 1, FromZero, T>(a(0), seg, p, start, c, L, g0, g1);
      return true;
    };
    if (whole.template operator()<tile_rows(1), 1>() || whole.template operator()<tile_rows(2), 2>() ||
        whole.template operator()<tile_rows(3), 3>() || whole.template operator()<tile_rows(4), 4>() ||
        whole.template operator()<1, one_row>())
      return;
    const Panels<T> panels{p.data + g0 * p.group, p.step, p.group};
    for (int first = 0; first < rows; first += max_rows) {
      const int n = std::min(max_rows, rows - first);
      const T* from[max_rows];
      T* to[max_rows];
      for (int r = 0; r < n; ++r) from[r] = start[first + r] + g0 * L, to[r] = c[first + r] + g0 * L;
      accumulate<1, FromZero>(n, a(first), seg, panels, from, to, L, g1 - g0);
    }
  }

  static void multiply(const WindowProduct<T>& p, const ConvolutionScratch<T>& own, i64 begin, i64 end) {
    const Windows<T>& w = p.windows;
    for (; begin < end; begin += own.rows) {
      const i64 last = std::min(begin + own.rows, end);
      if (p.by_step) {
        each_stretch(w, begin, last, [&](i64 n, i64 u0, i64 u1) { rows_by_step(p, own, n, u0, u1); });
        continue;
      }
      if (p.by_channel) {
        find(w, 0, w.groups, begin, last, channels_in_place(w), own);
        alike(own.windows, last - begin, [&](i64 m0, i64 m1, bool in_place) {
          rows_by_channel(p, own, m0, m1, in_place ? w.dilation * w.from.step : w.groups);
        });
        continue;
      }
      for (i64 group = 0; group < w.groups; ++group) {
        find(w, group * w.width, w.width, begin, last, runs_in_place(w), own);
        alike(own.windows, last - begin, [&](i64 m0, i64 m1, bool in_place) {
          const Segments seg =
              in_place ? Segments{w.K, w.width, w.dilation * w.from.step} : Segments{1, w.K * w.width, 0};
          rows_of_group(p, group, own, m0, m1, seg);
        });
      }
    }
  }

  static void rows_of_group(const WindowProduct<T>& p, i64 group, const ConvolutionScratch<T>& own, i64 begin, i64 end,
                            Segments seg) {
    const i64 numbers = p.windows.K * p.windows.width, groups = groups_of<T>(p.outputs);
    const Panels<T> panels{p.panels + group * groups * numbers * L, L, numbers * L};
    const T* start[8];
    std::fill_n(start, 8, p.start + group * p.start_group);
    const bool in_steps = p.steps == 1 && p.period == 1;
    if (in_steps)
      for (i64 m = begin; m < end; ++m)
        own.to[m] = p.to.at(own.windows[m].u - p.shift, own.windows[m].n) + group * p.outputs;
    const i64 run_of = end - begin == 1 ? one_row : group_block;
    for (i64 run = 0, runs = ceil_div(groups, run_of); run < runs; ++run) {
      const auto [g0, g1] = Slice(groups, run, runs);
      const i64 width = std::min(g1 * L, p.outputs) - g0 * L;
      const int most = end - begin == 1 ? 1 : tile_rows(int(g1 - g0));
      const Panels<T> own_panels{panels.data + g0 * panels.group, panels.step, panels.group};
      const T* own_start[8];
      std::fill_n(own_start, 8, start[0] + g0 * L);
      for (i64 m = begin; m < end; m += most) {
        const int n = int(std::min<i64>(most, end - m));
        const auto rows = [&](int r) { return ByRow<T>{own.at + m + r}; };
        if (in_steps && width == (g1 - g0) * L) {
          tile<false>(n, rows, seg, panels, start, own.to + m, g0, g1);
          continue;
        }
        alignas(64) T sums[8][columns];  // of one row all together
        T* to[8];
        for (int r = 0; r < n; ++r) to[r] = sums[r];
        tile<false>(n, rows, seg, own_panels, own_start, to, 0, g1 - g0);
        for (int r = 0; r < n; ++r) put(p, group, own.windows[m + r], g0 * L, width, sums[r]);
      }
    }
  }

  // Outputs [first, first + width) of a row to the steps that they are of.
  static void put(const WindowProduct<T>& p, i64 group, const Window& window, i64 first, i64 width, const T* sums) {
    const i64 channels = p.outputs / p.steps, length = p.lengths[window.n];
    i64 t = window.u * p.period - p.shift + first / channels, c = first % channels;
    for (const i64 end = first + width; first < end; ++t, c = 0) {
      const i64 n = std::min(channels - c, end - first);
      if (t >= 0 && t < length) copy(sums, n, p.to.at(t, window.n) + group * channels + c);
      first += n, sums += n;
    }
  }

  // The same where each channel is a group: lanes are channels. The positions of a window lie `position` apart.
  static void rows_by_channel(const WindowProduct<T>& p, const ConvolutionScratch<T>& own, i64 begin, i64 end,
                              i64 position) {
    constexpr int most = 8;
    const auto rows = [&]<int R>(i64 m) {
      const T* from[R];
      T* to[R];
      for (int r = 0; r < R; ++r) {
        from[r] = own.at[m + r];
        to[r] = p.to.at(own.windows[m + r].u - p.shift, own.windows[m + r].n);
      }
      const i64 C = p.windows.groups, row = padded<T>(C);
      for (i64 c = 0; c < C; c += L) {
        Vec<T> sums[R];
        for (int r = 0; r < R; ++r) sums[r] = load(p.start + c);
        const T* panel = p.panels + c;
        for (i64 k = 0, at = c; k < p.windows.K; ++k, at += position, panel += row) {
          const Vec<T> weights = load(panel);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) sums[r] = fma(load(from[r] + at), weights, sums[r]);
        }
        for (int r = 0; r < R; ++r) store(to[r] + c, sums[r], C - c);
      }
    };
    i64 m = begin;
    for (; m + most <= end; m += most) rows.template operator()<most>(m);
    for (; m < end; ++m) rows.template operator()<1>(m);
  }

  // The same of few outputs: lanes are the windows of neighbouring steps. What these read of a channel at a position of
  // the kernel is copied side by side: with stride 1 a channel at a time, whose positions then begin one after the
  // other, else for each position.
  static void rows_by_step(const WindowProduct<T>& p, const ConvolutionScratch<T>& own, i64 n, i64 u0, i64 u1) {
    const Windows<T>& w = p.windows;
    const i64 count = u1 - u0, reach = w.dilation * (w.K - 1), padded_count = padded<T>(count);
    const bool together = w.stride == 1 && padded_count + reach <= own.rows * w.K;
    const i64 row = together ? padded_count + reach : padded_count;  // of a channel, or a channel at a position
    for (i64 group = 0; group < w.groups; ++group) {
      const i64 channel = group * w.width, position = w.first + u0 * w.stride;
      if (together)
        copy_turned(w, n, channel, position, 1, count + reach, row, own.memory);
      else
        for (i64 k = 0; k < w.K; ++k)
          copy_turned(w, n, channel, position + k * w.dilation, w.stride, count, row, own.memory + k * w.width * row);
      const i64 of_position = together ? w.dilation : w.width * row;
      const T *panel = p.panels + group * w.K * w.width * L, *start = p.start + group * p.start_group;
      const auto outputs = [&]<int R>() {
        constexpr int U = R == 1 ? 8 : R == 2 ? 6 : max_accumulators / R;
        for (i64 u = 0; u < count; u += U * L)
          steps_of_outputs<R, U>(p, own.memory + u, row, of_position, panel, start, n, group, u0 + u,
                                 std::min<i64>(U * L, count - u));
      };
      static_assert(few_outputs <= 4);
      if (p.outputs == 1) outputs.template operator()<1>();
      if (p.outputs == 2) outputs.template operator()<2>();
      if constexpr (few_outputs > 2) {
        if (p.outputs == 3) outputs.template operator()<3>();
        if (p.outputs == 4) outputs.template operator()<4>();
      }
    }
  }

  template <int R, int U>
  static void steps_of_outputs(const WindowProduct<T>& p, const T* from, i64 row, i64 of_position, const T* panel,
                               const T* start, i64 n, i64 group, i64 u, i64 count) {
    const Windows<T>& w = p.windows;
    Vec<T> sums[R][U];
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < U; ++i) sums[r][i] = splat(start[r]);
    for (i64 k = 0; k < w.K; ++k, from += of_position) {
      const T* at = from;
      for (i64 c = 0; c < w.width; ++c, at += row, panel += L) {
        Vec<T> weights[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) weights[r] = splat(panel[r]);
#pragma GCC unroll 8
        for (int i = 0; i < U; ++i) {
          const Vec<T> x = load(at + i * L);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) sums[r][i] = fma(x, weights[r], sums[r][i]);
        }
      }
    }
    alignas(64) T turned[R][U * L];
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < U; ++i) store(turned[r] + i * L, sums[r][i]);
    T* to = p.to.at(u - p.shift, n) + group * R;
    if (R == 1 && p.to.step == 1) {
      std::copy_n(turned[0], count, to);
    } else {
      for (i64 i = 0; i < count; ++i, to += p.to.step)
        for (int r = 0; r < R; ++r) to[r] = turned[r][i];
    }
  }

  // What lies at `count` positions, `apart` from each other, of the channels of a group: a row for each channel, of
  // which nobody wants to know what is behind.
  __attribute__((noinline)) static void copy_turned(const Windows<T>& w, i64 n, i64 channel, i64 position, i64 apart,
                                                    i64 count, i64 row, T* to) {
    if (w.width == 1) {
      copy_positions(w, n, channel, 1, position, apart, count, to);
      return;
    }
    for (i64 i = 0; i < count; i += L)
      for (i64 c = 0; c < w.width; c += L) {
        const i64 channels = std::min<i64>(L, w.width - c), positions = std::min<i64>(L, count - i);
        const i64 first = position + i * apart, last = first + (L - 1) * apart;
        Vec<T> block[L];
        if (w.every == 1 && first >= 0 && last < w.lengths[n] && channel + c + L <= w.groups * w.width) {
          load_turned(w.from.at(first, n) + channel + c, apart * w.from.step, L, L, block);
        } else {
          alignas(64) T square[L * L];
          copy_positions(w, n, channel + c, channels, first, apart, positions, square);
          load_turned(square, channels, positions, channels, block);
        }
        for (i64 k = 0; k < channels; ++k) store(to + (c + k) * row + i, block[k], count - i);
      }
  }

  // ---- weights' gradients

  static void weight_grads(const WindowProduct<T>& p, Steps<const T> dy, T* sums, T* dbias,
                           const ConvolutionScratch<T>& own, i64 begin, i64 end, int part, int parts) {
    const Windows<T>& w = p.windows;
    for (; begin < end; begin += convolution_block) {
      const i64 count = std::min(convolution_block, end - begin);
      if (p.by_channel) {
        const Slice mine(groups_of<T>(w.groups), part, parts);
        find(w, 0, w.groups, begin, begin + count, channels_in_place(w), own);
        grads_by_channel(p, dy, sums, own, count, mine.begin * L, std::min(mine.end * L, w.groups));
        if (dbias) bias_grads(dy, own, count, mine.begin * L, std::min(mine.end * L, w.groups), dbias);
        continue;
      }
      const Slice mine(w.groups * p.outputs, part, parts);
      for (i64 o = mine.begin; o < mine.end;) {
        const i64 group = o / p.outputs, last = std::min(mine.end, (group + 1) * p.outputs);
        find(w, group * w.width, w.width, begin, begin + count, dense(w, w.width) && w.K * w.width % L == 0, own);
        grads_of_group(p, dy, sums, own, count, o, last);
        if (dbias) bias_grads(dy, own, count, o, last, dbias);
        o = last;
      }
    }
  }

  // The numbers of some rows at each step, side by side.
  struct BySteps {
    const T* data;
    i64 step;
    PYRNN_INLINE T at(int r, i64 k) const { return data[k * step + r]; }
  };

  // Of outputs [o0, o1), which are of one group. Columns of the windows are copied side by side a few groups at a time,
  // and before that dy a tile's rows at a time: else each step of it is a cache line of its own, for every tile.
  static void grads_of_group(const WindowProduct<T>& p, Steps<const T> dy, T* sums, const ConvolutionScratch<T>& own,
                             i64 count, i64 o0, i64 o1) {
    const i64 numbers = p.windows.K * p.windows.width, row = padded<T>(numbers), groups = groups_of<T>(numbers);
    for (i64 run = 0, runs = ceil_div(groups, group_block), copied = 0; run < runs; ++run) {
      const auto [g0, g1] = Slice(groups, run, runs);
      for (i64 m = 0; m < count; ++m)
        for (i64 g = g0; g < g1; ++g) store(own.columns + m * columns + (g - g0) * L, load(own.at[m] + g * L));
      const int most = tile_rows(int(g1 - g0));
      if (copied != most) {
        for (i64 m = 0; m < count; ++m) {
          const T* from = dy.at(own.windows[m].u, own.windows[m].n);
          T* to = own.dy + m * most;
          for (i64 o = o0; o < o1; o += most, to += convolution_block * most)
            for (int r = 0; r < std::min<i64>(most, o1 - o); ++r) to[r] = from[o + r];
        }
        copied = most;
      }
      const T* from = own.dy;
      for (i64 o = o0; o < o1; o += most, from += convolution_block * most) {
        const int n = int(std::min<i64>(most, o1 - o));
        T* to[8];
        for (int r = 0; r < n; ++r) to[r] = sums + (o + r) * row + g0 * L;
        tile<true>(
            n, [&](int r) { return BySteps{from + r, most}; }, Segments{1, count, 0},
            Panels<T>{own.columns, columns, L}, to, to, 0, g1 - g0);
      }
    }
  }

  static void grads_by_channel(const WindowProduct<T>& p, Steps<const T> dy, T* sums, const ConvolutionScratch<T>& own,
                               i64 count, i64 c0, i64 c1) {
    const Windows<T>& w = p.windows;
    const i64 row = padded<T>(w.groups);
    i64 k = 0;
    const auto positions = [&]<int R>() {
      for (; k + R <= w.K; k += R)
        for (i64 c = c0; c < c1; c += L) {
          Vec<T> add[R]{};
          for (i64 m = 0; m < count; ++m) {
            const Window& window = own.windows[m];
            const i64 position = window.in_place ? w.dilation * w.from.step : w.groups;
            const T* at = own.at[m] + k * position + c;
            const Vec<T> d = load(dy.at(window.u, window.n) + c, w.groups - c);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r, at += position) add[r] = fma(load(at), d, add[r]);
          }
          T* to = sums + k * row + c;
          for (int r = 0; r < R; ++r, to += row) store(to, load(to) + add[r]);
        }
    };
    positions.template operator()<8>();
    positions.template operator()<4>();
    positions.template operator()<2>();
    positions.template operator()<1>();
  }

  static void bias_grads(Steps<const T> dy, const ConvolutionScratch<T>& own, i64 count, i64 o0, i64 o1, T* dbias) {
    for (i64 m = 0; m < count; ++m) {
      const T* from = dy.at(own.windows[m].u, own.windows[m].n);
      for (i64 o = o0; o < o1; ++o) dbias[o] += from[o];
    }
  }

  static constexpr ConvolutionKernels<T> kernels{L,         columns, few_outputs, pack,
                                                 pack_back, turn,    multiply,    weight_grads};
};

}  // namespace pyrnn::PYRNN_ISA
