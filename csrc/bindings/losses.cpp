// pyrnn.kernels.cross_entropy.
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "dispatch.hpp"
#include "losses/driver.hpp"

namespace pyrnn {

namespace {

py::tuple cross_entropy_forward(py::handle logits_, py::handle targets_, py::handle weights_) {
  const std::string call = "cross_entropy.forward";
  return with_dtype(call, "logits", logits_, [&]<class T>() -> py::tuple {
    const py::array_t<T> logits = to_packed<T>(call, "logits", to_matrix<T>(call, "logits", logits_, -1));
    const i64 M = logits.shape(0), V = logits.shape(1);
    if (V == 0) wrong_shape(call, "logits", logits, "(M, V) with at least one class");
    py::array_t<T> weights = no_array<py::array_t<T>>();
    if (!weights_.is_none()) {
      weights = to_packed<T>(call, "weights", weights_);
      check_shape(call, "weights", weights, {M});
    }
    const py::array_t<i64> targets =
        to_ids(call, "targets", targets_, M, V, weights_.is_none() ? nullptr : weights.data());
    py::array_t<T> dlogits = empty<T>({M, V});
    const T *in = logits.data(), *w = weights_.is_none() ? nullptr : weights.data();
    const i64* target = targets.data();
    T* out = dlogits.mutable_data();
    double loss = 0;
    {
      const WithoutGil released;
      loss = cross_entropy(kernels<T>().losses, in, target, w, M, V, out);
    }
    return py::make_tuple(loss, dlogits);
  });
}

}  // namespace

void bind_losses(py::module_& parent) {
  py::module_ cross_entropy = parent.def_submodule("cross_entropy", "Softmax cross-entropy, compiled.");
  cross_entropy.def(
      "forward",
      [](py::object logits, py::object targets, py::object weights) {
        return cross_entropy_forward(logits, targets, weights);
      },
      py::arg("logits"), py::arg("targets"), py::arg("weights") = py::none(),
      "logits (M, V), targets (M,), weights (M,) or None -> (loss, dlogits).");
}

}  // namespace pyrnn
