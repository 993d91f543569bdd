// pyrnn.kernels.layer_norm.
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "dispatch.hpp"
#include "norm/driver.hpp"

namespace pyrnn {

namespace {

// y, and with `keep` what the way back needs.
py::object layer_norm_forward(const char* name, bool keep, py::handle x_, py::handle weight_, py::handle bias_,
                              double eps) {
  const std::string call = name;
  return with_dtype(call, "x", x_, [&]<class T>() -> py::object {
    const py::array_t<T> x = to_packed<T>(call, "x", x_), weight = to_packed<T>(call, "weight", weight_);
    if (weight.ndim() != 1 || weight.size() == 0) wrong_shape(call, "weight", weight, "(E,)");
    LayerNorm<T> n;
    n.E = weight.size(), n.eps = T(eps), n.weight = weight.data(), n.x = x.data();
    if (x.ndim() == 0 || x.shape(x.ndim() - 1) != n.E) wrong_shape(call, "x", x, "(..., " + std::to_string(n.E) + ")");
    n.M = x.size() / n.E;
    py::array_t<T> bias = no_array<py::array_t<T>>();
    if (!bias_.is_none()) {
      bias = to_packed<T>(call, "bias", bias_);
      check_shape(call, "bias", bias, {n.E});
      n.bias = bias.data();
    }
    const Shape shape(x);
    py::array_t<T> y = empty<T>(shape), normal = no_array<py::array_t<T>>(), inverse = normal;
    n.y = y.mutable_data();
    if (keep) {
      normal = empty<T>(shape), inverse = empty<T>({n.M});
      n.normal = normal.mutable_data(), n.inverse = inverse.mutable_data();
    }
    {
      const WithoutGil released;
      layer_norm(kernels<T>().norm, n);
    }
    if (!keep) return y;
    return py::make_tuple(y, normal, inverse);
  });
}

py::tuple backward(py::handle dy_, py::handle normal_, py::handle inverse_, py::handle weight_) {
  const std::string call = "layer_norm.backward";
  return with_dtype(call, "dy", dy_, [&]<class T>() -> py::tuple {
    const py::array_t<T> dy = to_packed<T>(call, "dy", dy_), normal = to_packed<T>(call, "normal", normal_),
                         inverse = to_packed<T>(call, "inverse", inverse_),
                         weight = to_packed<T>(call, "weight", weight_);
    if (weight.ndim() != 1 || weight.size() == 0) wrong_shape(call, "weight", weight, "(E,)");
    LayerNormGrads<T> n;
    n.E = weight.size(), n.M = dy.size() / n.E;
    if (dy.ndim() == 0 || dy.shape(dy.ndim() - 1) != n.E)
      wrong_shape(call, "dy", dy, "(..., " + std::to_string(n.E) + ")");
    const Shape shape(dy);
    if (!has_shape(normal, shape)) wrong_shape(call, "normal", normal, "that of dy, " + shape_text(dy));
    check_shape(call, "inverse", inverse, {n.M});
    py::array_t<T> dx = empty<T>(shape), dweight = empty<T>({n.E}), dbias = empty<T>({n.E});
    n.dy = dy.data(), n.normal = normal.data(), n.inverse = inverse.data(), n.weight = weight.data();
    n.dx = dx.mutable_data(), n.dweight = dweight.mutable_data(), n.dbias = dbias.mutable_data();
    {
      const WithoutGil released;
      layer_norm_backward(kernels<T>().norm, n);
    }
    return py::make_tuple(dx, dweight, dbias);
  });
}

}  // namespace

void bind_norm(py::module_& parent) {
  py::module_ layer_norm = parent.def_submodule("layer_norm", "Layer normalisation, compiled.");
  const auto x = py::arg("x"), weight = py::arg("weight"), bias = py::arg("bias"), eps = py::arg("eps");
  layer_norm.def(
      "forward",
      [](py::object x, py::object weight, py::object bias, double eps) {
        return layer_norm_forward("layer_norm.forward", false, x, weight, bias, eps);
      },
      x, weight, bias, eps, "x (..., E), weight (E,), bias (E,) or None -> y (..., E).");
  layer_norm.def(
      "record",
      [](py::object x, py::object weight, py::object bias, double eps) {
        return layer_norm_forward("layer_norm.record", true, x, weight, bias, eps);
      },
      x, weight, bias, eps, "The same -> y, normal (..., E), inverse (M,), for M rows.");
  layer_norm.def(
      "backward",
      [](py::object dy, py::object normal, py::object inverse, py::object weight) {
        return backward(dy, normal, inverse, weight);
      },
      py::arg("dy"), py::arg("normal"), py::arg("inverse"), weight,
      "dy (..., E), what record gave, weight (E,) -> dx (..., E), dweight (E,), dbias (E,).");
}

}  // namespace pyrnn
