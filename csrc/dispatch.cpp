// The instruction sets this build holds, best first, and the choice among them.
#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "base/system.hpp"

namespace pyrnn {

#define PYRNN_DECLARE(set)                             \
  namespace set {                                      \
  template <class T> const Kernels<T>& kernel_table(); \
  template <> const Kernels<float>& kernel_table();    \
  template <> const Kernels<double>& kernel_table();   \
  const Forms<float>& forms();                         \
  }

PYRNN_DECLARE(x86_64_v2)
PYRNN_DECLARE(x86_64_v3)
PYRNN_DECLARE(x86_64_v4)
PYRNN_DECLARE(x86_64_v4_dot)
PYRNN_DECLARE(x86_64_v4_bf16)
PYRNN_DECLARE(arm64)
PYRNN_DECLARE(arm64_dot)

namespace {

#if defined(__x86_64__)
#if defined(__clang__)  // whose older versions do not know the levels by name
bool has_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
bool has_v4() {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
bool has_v3() { return __builtin_cpu_supports("x86-64-v3"); }
bool has_v4() { return __builtin_cpu_supports("x86-64-v4"); }
#endif
bool has_vnni() { return has_v4() && __builtin_cpu_supports("avx512vnni"); }
bool has_bf16() { return has_vnni() && __builtin_cpu_supports("avx512bf16"); }
bool has_v2() { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"); }
#endif

// A set of the build, with forms of other namespaces where some of its CPUs can do more.
#define PYRNN_SET(name, supported, set, of_int8, of_rounded) \
  {name, supported, set::kernel_table<float>, set::kernel_table<double>, set::forms, of_int8::forms, of_rounded::forms}

const InstructionSet sets[] = {
#ifdef PYRNN_HAS_x86_64_v4  // defined by the build for each set it holds
    PYRNN_SET("x86-64-v4-bf16", has_bf16, x86_64_v4, x86_64_v4_dot, x86_64_v4_bf16),
    PYRNN_SET("x86-64-v4-vnni", has_vnni, x86_64_v4, x86_64_v4_dot, x86_64_v4),
    PYRNN_SET("x86-64-v4", has_v4, x86_64_v4, x86_64_v4, x86_64_v4),
#endif
#ifdef PYRNN_HAS_x86_64_v3
    PYRNN_SET("x86-64-v3", has_v3, x86_64_v3, x86_64_v3, x86_64_v3),
#endif
#ifdef PYRNN_HAS_x86_64_v2
    PYRNN_SET("x86-64-v2", has_v2, x86_64_v2, x86_64_v2, x86_64_v2),
#endif
#ifdef PYRNN_HAS_arm64
    PYRNN_SET("arm64-dotprod", system::has_dot_products, arm64, arm64_dot, arm64),
    PYRNN_SET(
        "arm64-neon", [] { return true; }, arm64, arm64, arm64),
#endif
};

const InstructionSet& choose() {
  const char* wanted = std::getenv("PYRNN_ISA");
  std::string known;
  for (const InstructionSet& set : sets) {
    known += (known.empty() ? "" : ", ") + std::string(set.name);
    if (wanted && std::string(wanted) != set.name) continue;
    if (set.supported()) return set;
    if (wanted) throw std::invalid_argument("PYRNN_ISA is '" + std::string(wanted) + "', which this CPU does not have");
  }
  if (wanted) throw std::invalid_argument("PYRNN_ISA is '" + std::string(wanted) + "', expected one of " + known);
  throw std::runtime_error("this CPU has none of the instruction sets " + known);
}

}  // namespace

std::vector<const char*> instruction_sets() {
  std::vector<const char*> names;
  for (const InstructionSet& set : sets) names.push_back(set.name);
  return names;
}

const InstructionSet& instruction_set() {
  static const InstructionSet& set = choose();
  return set;
}

template <> const Kernels<float>& kernels<float>() {
  static const Kernels<float>& table = instruction_set().float32();
  return table;
}

template <> const Kernels<double>& kernels<double>() {
  static const Kernels<double>& table = instruction_set().float64();
  return table;
}

const Forms<float>& forms() {
  static const Forms<float> table{instruction_set().bfloat16().bfloat16, instruction_set().int8().int8,
                                  instruction_set().rounded().rounded};
  return table;
}

}  // namespace pyrnn
