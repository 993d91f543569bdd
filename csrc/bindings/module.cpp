// The compiled module: a table of contents.
#include <cstring>

#include "base/cpus.hpp"
#include "base/threads.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/signals.hpp"
#include "dispatch.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace pyrnn;
  m.doc() = "The compiled kernels of pyrnn.";
  // A wrong PYRNN_NUM_THREADS or PYRNN_ISA is an error at import.
  get_num_threads();
  instruction_set();
  watch_signals();
  m.def(
      "isa", [] { return instruction_set().name; },
      "The instruction set in use: x86-64-v4, x86-64-v3, x86-64-v2 or arm64-neon.");
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
  m.def(
      "copied",
      [](py::object array) {
        return with_real("copied", "array", array, [&]<class T>() -> py::array {
          const auto from = py::reinterpret_borrow<py::array>(array);
          py::array_t<T> to = empty<T>(std::vector<py::ssize_t>(from.shape(), from.shape() + from.ndim()));
          if (!(from.flags() & py::array::c_style)) {
            py::module_::import("numpy").attr("copyto")(to, from);
            return to;
          }
          const char* source = static_cast<const char*>(from.data());
          char* target = reinterpret_cast<char*>(to.mutable_data());
          const i64 n = from.size();
          {
            const WithoutGil released;
            Team team(4 * n);  // a number is copied in the time of some multiply-adds
            in_parts(team, [&](int part, int parts) {
              const i64 begin = n * part / parts, end = n * (part + 1) / parts;
              std::memcpy(target + begin * i64(sizeof(T)), source + begin * i64(sizeof(T)),
                          std::size_t(end - begin) * sizeof(T));
            });
          }
          return to;
        });
      },
      py::arg("array"), "A C-ordered copy, in memory that earlier results have given back.");
  bind_recurrent(m);
  bind_cells(m);
  bind_dense(m);
  bind_hopfield(m);
  bind_attention(m);
  bind_machine(m);
}
