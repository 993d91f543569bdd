// What this process uses: its instruction set, threads, memory that results give back, and Python's signals.
#include "base/cpus.hpp"
#include "base/threads.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/signals.hpp"
#include "dispatch.hpp"

namespace pyrnn {

namespace {

template <class T> py::array copied(const py::array& from) {
  py::array_t<T> to = empty<T>(Shape(from));
  if (from.flags() & py::array::c_style) {
    const void* source = from.data();
    void* target = to.mutable_data();
    const i64 bytes = from.nbytes();
    const WithoutGil released;
    copy_bytes(target, source, bytes);
  } else {
    py::module_::import("numpy").attr("copyto")(to, from);
  }
  return to;
}

py::array uninitialised(const py::tuple& lengths, const py::dtype& dtype) {
  const std::string call = "empty";
  Shape shape{};
  if (lengths.size() > 64)
    wrong_value(call, "shape has " + std::to_string(lengths.size()) + " axes, expected at most 64");
  for (std::size_t k = 0; k < lengths.size(); ++k)
    shape.add(to_integer(call, at("shape", k), py::object(lengths[k]), 0, i64(1) << 60));
  if (dtype.equal(py::dtype::of<float>())) return empty<float>(shape);
  if (dtype.equal(py::dtype::of<double>())) return empty<double>(shape);
  throw py::type_error(call + ": dtype is " + std::string(py::str(dtype)) + ", expected float32 or float64");
}

}  // namespace

void bind_process(py::module_& m) {
  // A wrong PYRNN_NUM_THREADS or PYRNN_ISA is an error at import.
  get_num_threads();
  instruction_set();
  watch_signals();
  m.def(
      "isa", [] { return instruction_set().name; },
      "The instruction set in use: x86-64-v4-bf16, x86-64-v4-vnni, x86-64-v4, x86-64-v3, x86-64-v2, arm64-dotprod or "
      "arm64-neon.");
  m.def(
      "isas",
      [] {
        py::list names;
        for (const char* name : instruction_sets()) names.append(name);
        return names;
      },
      "The instruction sets of this build, best first.");
  m.def("get_num_threads", &get_num_threads);
  m.def(
      "set_num_threads",
      [](py::object threads) {
        set_num_threads(int(to_integer("set_num_threads", "threads", threads, 1, most_threads)));
      },
      py::arg("threads"));
  m.def("quota_cpus", &quota_cpus, py::arg("groups"), py::arg("mount"),
        "CPUs that the quotas of the control groups named in a file leave, 0 where there is none.");
  m.def("empty", &uninitialised, py::arg("shape"), py::arg("dtype"),
        "An array of any numbers, in memory that earlier results have given back.");
  m.def(
      "copied",
      [](py::object array) {
        return with_dtype("copied", "array", array,
                          [&]<class T>() { return copied<T>(py::reinterpret_borrow<py::array>(array)); });
      },
      py::arg("array"), "A C-ordered copy, in memory that earlier results have given back.");
}

}  // namespace pyrnn
