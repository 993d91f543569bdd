// The instruction sets this build holds, best first, and the choice among them.
#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace pyrnn {

#define PYRNN_DECLARE(set)                     \
  namespace set {                              \
  extern const Kernels<float> single_kernels;  \
  extern const Kernels<double> double_kernels; \
  }

#if defined(__x86_64__)
PYRNN_DECLARE(x86_64_v2)
PYRNN_DECLARE(x86_64_v3)
PYRNN_DECLARE(x86_64_v4)
#else
PYRNN_DECLARE(baseline)
#endif

namespace {

const InstructionSet sets[] = {
#if defined(__x86_64__)
    {"x86-64-v4",
     [] {
       return bool(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl"));
     },
     &x86_64_v4::single_kernels, &x86_64_v4::double_kernels},
    {"x86-64-v3",
     [] {
       return bool(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                   __builtin_cpu_supports("bmi2"));
     },
     &x86_64_v3::single_kernels, &x86_64_v3::double_kernels},
    {"x86-64-v2", [] { return bool(__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt")); },
     &x86_64_v2::single_kernels, &x86_64_v2::double_kernels},
#elif defined(__aarch64__)
    {"arm64-neon", [] { return true; }, &baseline::single_kernels, &baseline::double_kernels},
#else
    {"baseline", [] { return true; }, &baseline::single_kernels, &baseline::double_kernels},
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

const InstructionSet& instruction_set() {
  static const InstructionSet& set = choose();
  return set;
}

}  // namespace pyrnn
