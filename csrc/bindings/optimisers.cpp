// pyrnn.kernels.adam, sgd, rmsprop and norm.
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "dispatch.hpp"
#include "optimisers/driver.hpp"

namespace pyrnn {

namespace {

i64 flat_size(const std::string& call, py::handle object) {
  const py::array a = to_array(call, "params", object);
  if (a.ndim() != 1) wrong_shape(call, "params", a, "(n,)");
  return a.shape(0);
}

template <class T> py::array_t<T> to_grads(const std::string& call, py::handle object, i64 n) {
  py::array_t<T> grads = to_packed<T>(call, "grads", object);
  check_shape(call, "grads", grads, {n});
  return grads;
}

template <class T> T* to_velocity(const std::string& call, py::handle object, i64 n, double momentum) {
  T* velocity = to_gradient<T>(call, "velocity", object, {n});
  if (!velocity && momentum != 0) wrong_value(call, "momentum needs a velocity");
  return velocity;
}

void adam_step(py::handle params_, py::handle grads_, py::handle m_, py::handle v_, double lr, double beta1,
               double beta2, double eps, double weight_decay, i64 step, bool decoupled) {
  const std::string call = "adam.step";
  if (step < 1) wrong_value(call, "step is " + std::to_string(step) + ", expected at least 1");
  with_dtype(call, "params", params_, [&]<class T>() {
    const i64 n = flat_size(call, params_);
    T *params = to_flat<T>(call, "params", params_, n), *m = to_flat<T>(call, "m", m_, n),
      *v = to_flat<T>(call, "v", v_, n);
    const py::array_t<T> grads = to_grads<T>(call, grads_, n);
    const T* g = grads.data();
    const AdamStep s{lr, beta1, beta2, eps, weight_decay, step, decoupled};
    const WithoutGil released;
    adam(kernels<T>().optimisers, params, g, m, v, n, s);
  });
}

void sgd_step(py::handle params_, py::handle grads_, py::handle velocity_, double lr, double momentum,
              double weight_decay, bool nesterov) {
  const std::string call = "sgd.step";
  with_dtype(call, "params", params_, [&]<class T>() {
    const i64 n = flat_size(call, params_);
    T* params = to_flat<T>(call, "params", params_, n);
    T* velocity = to_velocity<T>(call, velocity_, n, momentum);
    const py::array_t<T> grads = to_grads<T>(call, grads_, n);
    const T* g = grads.data();
    const SgdStep s{lr, momentum, weight_decay, nesterov};
    const WithoutGil released;
    sgd(kernels<T>().optimisers, params, g, velocity, n, s);
  });
}

void rmsprop_step(py::handle params_, py::handle grads_, py::handle square_, py::handle velocity_, double lr,
                  double keep, double add, double eps, double weight_decay, double momentum) {
  const std::string call = "rmsprop.step";
  with_dtype(call, "params", params_, [&]<class T>() {
    const i64 n = flat_size(call, params_);
    T *params = to_flat<T>(call, "params", params_, n), *square = to_flat<T>(call, "square", square_, n);
    T* velocity = to_velocity<T>(call, velocity_, n, momentum);
    const py::array_t<T> grads = to_grads<T>(call, grads_, n);
    const T* g = grads.data();
    const RmspropStep s{lr, keep, add, eps, weight_decay, momentum};
    const WithoutGil released;
    rmsprop(kernels<T>().optimisers, params, g, square, velocity, n, s);
  });
}

double l2(py::handle x_) {
  const std::string call = "norm.l2";
  return with_dtype(call, "flat", x_, [&]<class T>() {
    const py::array_t<T> x = to_packed<T>(call, "flat", x_);
    if (x.ndim() != 1) wrong_shape(call, "flat", x, "(n,)");
    const T* data = x.data();
    const i64 n = x.size();
    const WithoutGil released;
    return l2_norm(kernels<T>().optimisers, data, n);
  });
}

}  // namespace

void bind_optimisers(py::module_& parent) {
  py::module_ adam = parent.def_submodule("adam", "The Adam step, compiled.");
  adam.def(
      "step",
      [](py::object params, py::object grads, py::object m, py::object v, double lr, double beta1, double beta2,
         double eps, double weight_decay, i64 step,
         bool decoupled) { adam_step(params, grads, m, v, lr, beta1, beta2, eps, weight_decay, step, decoupled); },
      py::arg("params"), py::arg("grads"), py::arg("m"), py::arg("v"), py::kw_only(), py::arg("lr"), py::arg("beta1"),
      py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"), py::arg("step"), py::arg("decoupled") = false,
      "Changes params, m and v in place.");

  py::module_ sgd = parent.def_submodule("sgd", "The SGD step, compiled.");
  sgd.def(
      "step",
      [](py::object params, py::object grads, py::object velocity, double lr, double momentum, double weight_decay,
         bool nesterov) { sgd_step(params, grads, velocity, lr, momentum, weight_decay, nesterov); },
      py::arg("params"), py::arg("grads"), py::arg("velocity"), py::kw_only(), py::arg("lr"), py::arg("momentum"),
      py::arg("weight_decay"), py::arg("nesterov"), "Changes params and velocity in place.");

  py::module_ rmsprop = parent.def_submodule("rmsprop", "The RMSprop and Adagrad steps, compiled.");
  rmsprop.def(
      "step",
      [](py::object params, py::object grads, py::object square, py::object velocity, double lr, double keep,
         double add, double eps, double weight_decay, double momentum) {
        rmsprop_step(params, grads, square, velocity, lr, keep, add, eps, weight_decay, momentum);
      },
      py::arg("params"), py::arg("grads"), py::arg("square"), py::arg("velocity"), py::kw_only(), py::arg("lr"),
      py::arg("keep"), py::arg("add"), py::arg("eps"), py::arg("weight_decay"), py::arg("momentum"),
      "Changes params, square and velocity in place.");

  py::module_ norm = parent.def_submodule("norm", "Norms, compiled.");
  norm.def(
      "l2", [](py::object flat) { return l2(flat); }, py::arg("flat"),
      "The Euclidean norm of a flat array, summed in float64.");
}

}  // namespace pyrnn
