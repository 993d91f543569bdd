// pyrnn.kernels.ctc and pyrnn.kernels.crf.
#include "alignment/driver.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "dispatch.hpp"

namespace pyrnn {

namespace {

// (T, N, V) with at least one class, which is kept alive.
template <class T> Steps<const T> to_scores(const std::string& call, const std::string& name, py::array& scores) {
  if (scores.ndim() != 3 || scores.shape(2) == 0) wrong_shape(call, name, scores, "(T, N, V) with at least one class");
  return to_steps<T>(scores);
}

std::vector<i64> lengths_or_all(const std::string& call, py::handle lengths, i64 steps, i64 N) {
  return lengths.is_none() ? std::vector<i64>(std::size_t(N), steps) : to_lengths(call, lengths, steps, N);
}

py::tuple ctc_forward(py::handle logits_, py::handle targets_, py::handle target_lengths_, py::handle lengths_,
                      py::handle blank_) {
  const std::string call = "ctc.forward";
  return with_dtype(call, "logits", logits_, [&]<class T>() -> py::tuple {
    py::array logits = to_typed<T>(call, "logits", logits_);
    Ctc<T> c;
    c.logits = to_scores<T>(call, "logits", logits);
    c.steps = logits.shape(0), c.N = logits.shape(1), c.V = logits.shape(2);
    c.blank = to_integer(call, "blank", blank_, 0, c.V - 1);
    const py::array_t<i64> given = to_packed<i64>(call, "targets", targets_);
    if (given.ndim() != 2 || given.shape(0) != c.N)
      wrong_shape(call, "targets", given, "(" + std::to_string(c.N) + ", S)");
    c.S = given.shape(1);
    const std::vector<i64> targets(given.data(), given.data() + given.size());
    const std::vector<i64> lengths = lengths_or_all(call, lengths_, c.steps, c.N);
    const py::array_t<i64> ends = to_packed<i64>(call, "target_lengths", target_lengths_);
    check_shape(call, "target_lengths", ends, {c.N});
    const std::vector<i64> target_lengths(ends.data(), ends.data() + c.N);
    for (i64 n = 0; n < c.N; ++n) {
      const i64 end = target_lengths[std::size_t(n)];
      if (end < 0 || end > c.S)
        wrong_value(call, at("target_lengths", std::size_t(n)) + " is " + std::to_string(end) + ", expected 0 to " +
                              std::to_string(c.S));
      for (i64 i = 0; i < end; ++i)
        if (const i64 id = targets[std::size_t(n * c.S + i)]; id < 0 || id >= c.V || id == c.blank)
          wrong_value(call,
                      "row " + std::to_string(n) + " of targets holds " + std::to_string(id) +
                          (id == c.blank ? ", which is the blank" : ", expected 0 to " + std::to_string(c.V - 1)));
    }
    c.targets = targets.data(), c.lengths = lengths.data(), c.target_lengths = target_lengths.data();
    py::array_t<double> losses = empty<double>({c.N});
    py::array dlogits = laid_out_as<T>(logits, c.steps, c.V);
    double* out = losses.mutable_data();
    const Steps<T> gradient = writable_steps<T>(dlogits);
    {
      const WithoutGil released;
      ctc(kernels<T>().alignment, c, out, gradient);
    }
    return py::make_tuple(losses, dlogits);
  });
}

// Everything the functions of a CRF have in common, checked and kept alive.
template <class T> struct CrfCall {
  py::array scores;
  py::array_t<T> transitions, start, end;
  std::vector<i64> lengths;
  Crf<T> crf;

  CrfCall(const std::string& call, py::handle scores_, py::handle transitions_, py::handle start_, py::handle end_,
          py::handle lengths_)
      : scores(to_typed<T>(call, "scores", scores_)),
        transitions(to_packed<T>(call, "transitions", transitions_)),
        start(to_packed<T>(call, "start", start_)),
        end(to_packed<T>(call, "end", end_)) {
    crf.scores = to_scores<T>(call, "scores", scores);
    crf.steps = scores.shape(0), crf.N = scores.shape(1), crf.V = scores.shape(2);
    check_shape(call, "transitions", transitions, {crf.V, crf.V});
    check_shape(call, "start", start, {crf.V});
    check_shape(call, "end", end, {crf.V});
    lengths = lengths_or_all(call, lengths_, crf.steps, crf.N);
    crf.transitions = transitions.data(), crf.start = start.data(), crf.end = end.data(), crf.lengths = lengths.data();
  }
};

py::tuple crf_forward(py::handle scores, py::handle tags_, py::handle transitions, py::handle start, py::handle end,
                      py::handle lengths) {
  const std::string name = "crf.forward";
  return with_dtype(name, "scores", scores, [&]<class T>() -> py::tuple {
    CrfCall<T> call(name, scores, transitions, start, end, lengths);
    Crf<T>& c = call.crf;
    const py::array_t<i64> given = to_packed<i64>(name, "tags", tags_);
    check_shape(name, "tags", given, {c.steps, c.N});
    const std::vector<i64> tags(given.data(), given.data() + given.size());
    for (i64 n = 0; n < c.N; ++n)
      for (i64 t = 0; t < c.lengths[n]; ++t)
        if (const i64 tag = tags[std::size_t(t * c.N + n)]; tag < 0 || tag >= c.V)
          wrong_value(name, "row " + std::to_string(n) + " of tags holds " + std::to_string(tag) + ", expected 0 to " +
                                std::to_string(c.V - 1));
    c.tags = tags.data();
    py::array_t<double> losses = empty<double>({c.N});
    py::array dscores = laid_out_as<T>(call.scores, c.steps, c.V);
    py::array_t<T> dtransitions = empty<T>({c.V, c.V}), dstart = empty<T>({c.V}), dend = empty<T>({c.V});
    double* out = losses.mutable_data();
    const Steps<T> gradient = writable_steps<T>(dscores);
    T *of_transitions = dtransitions.mutable_data(), *of_start = dstart.mutable_data(), *of_end = dend.mutable_data();
    {
      const WithoutGil released;
      crf(kernels<T>().alignment, c, out, gradient, of_transitions, of_start, of_end);
    }
    return py::make_tuple(losses, dscores, dtransitions, dstart, dend);
  });
}

py::tuple marginals(py::handle scores, py::handle transitions, py::handle start, py::handle end, py::handle lengths) {
  const std::string name = "crf.marginals";
  return with_dtype(name, "scores", scores, [&]<class T>() -> py::tuple {
    const CrfCall<T> call(name, scores, transitions, start, end, lengths);
    const Crf<T>& c = call.crf;
    py::array_t<double> log_partitions = empty<double>({c.N});
    py::array marginals = laid_out_as<T>(call.scores, c.steps, c.V);
    double* out = log_partitions.mutable_data();
    const Steps<T> steps = writable_steps<T>(marginals);
    {
      const WithoutGil released;
      crf_marginals(kernels<T>().alignment, c, out, steps);
    }
    return py::make_tuple(marginals, log_partitions);
  });
}

py::tuple decode(py::handle scores, py::handle transitions, py::handle start, py::handle end, py::handle lengths) {
  const std::string name = "crf.decode";
  return with_dtype(name, "scores", scores, [&]<class T>() -> py::tuple {
    const CrfCall<T> call(name, scores, transitions, start, end, lengths);
    const Crf<T>& c = call.crf;
    py::array_t<double> best = empty<double>({c.N});
    py::array_t<i64> tags = empty<i64>({c.steps, c.N});
    double* out = best.mutable_data();
    const Steps<i64> steps{tags.mutable_data(), c.N, 1};
    {
      const WithoutGil released;
      crf_decode(kernels<T>().alignment, c, out, steps);
    }
    return py::make_tuple(tags, best);
  });
}

}  // namespace

void bind_alignment(py::module_& parent) {
  py::module_ ctc = parent.def_submodule("ctc", "Connectionist temporal classification, compiled.");
  ctc.def(
      "forward",
      [](py::object logits, py::object targets, py::object target_lengths, py::object lengths, py::object blank) {
        return ctc_forward(logits, targets, target_lengths, lengths, blank);
      },
      py::arg("logits"), py::arg("targets"), py::arg("target_lengths"), py::arg("lengths") = py::none(),
      py::arg("blank") = 0,
      "logits (T, N, V), targets (N, S), target_lengths (N,), lengths (N,) or None -> losses (N,), dlogits.");
  py::module_ crf = parent.def_submodule("crf", "A linear-chain conditional random field, compiled.");
  const auto scores = py::arg("scores"), transitions = py::arg("transitions"), start = py::arg("start"),
             end = py::arg("end");
  crf.def(
      "forward",
      [](py::object scores, py::object tags, py::object transitions, py::object start, py::object end,
         py::object lengths) { return crf_forward(scores, tags, transitions, start, end, lengths); },
      scores, py::arg("tags"), transitions, start, end, py::arg("lengths") = py::none(),
      "scores (T, N, V), tags (T, N), weights -> losses (N,), dscores, dtransitions, dstart, dend.");
  crf.def(
      "marginals",
      [](py::object scores, py::object transitions, py::object start, py::object end, py::object lengths) {
        return marginals(scores, transitions, start, end, lengths);
      },
      scores, transitions, start, end, py::arg("lengths") = py::none(),
      "scores (T, N, V), weights -> marginals (T, N, V), log partition functions (N,).");
  crf.def(
      "decode",
      [](py::object scores, py::object transitions, py::object start, py::object end, py::object lengths) {
        return decode(scores, transitions, start, end, lengths);
      },
      scores, transitions, start, end, py::arg("lengths") = py::none(),
      "scores (T, N, V), weights -> tags (T, N), their scores (N,).");
}

}  // namespace pyrnn
