// The instruction sets this build holds, best first, and the choice among them.
#include "dispatch.hpp"

#if defined(__x86_64__) && defined(__clang__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
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
#if defined(__clang__)  // some of whose runtimes have been told of no CPU, and older ones of no levels
struct Cpu {
  unsigned basic = 0, more = 0, dot = 0, rounded = 0, extended = 0, saved = 0;  // bits of CPUID, and of XCR0

  Cpu() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d)) basic = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) more = b, dot = c;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) rounded = a;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) extended = c;
    if (basic >> 27 & 1) asm volatile("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
  }
  static bool all(unsigned of, std::initializer_list<int> bits) {
    return std::ranges::all_of(bits, [&](int bit) { return of >> bit & 1; });
  }
  // Instructions, and registers that the system saves.
  bool v2() const { return all(basic, {0, 9, 13, 19, 20, 23}); }  // up to SSE 4.2, POPCNT
  bool v3() const {
    return v2() && all(basic, {12, 22, 28, 29}) && all(more, {3, 5, 8}) &&  // FMA, MOVBE, AVX, F16C; BMI, AVX2
           all(extended, {5}) && all(saved, {1, 2});                        // LZCNT
  }
  bool v4() const { return v3() && all(more, {16, 17, 28, 30, 31}) && all(saved, {5, 6, 7}); }  // AVX-512
};
const Cpu& cpu() {
  static const Cpu asked;
  return asked;
}
bool has_v2() { return cpu().v2(); }
bool has_v3() { return cpu().v3(); }
bool has_v4() { return cpu().v4(); }
bool has_vnni() { return has_v4() && Cpu::all(cpu().dot, {11}); }
bool has_bf16() { return has_vnni() && Cpu::all(cpu().rounded, {5}); }
#else
bool has_v2() { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"); }
bool has_v3() { return __builtin_cpu_supports("x86-64-v3"); }
bool has_v4() { return __builtin_cpu_supports("x86-64-v4"); }
bool has_vnni() { return has_v4() && __builtin_cpu_supports("avx512vnni"); }
bool has_bf16() { return has_vnni() && __builtin_cpu_supports("avx512bf16"); }
#endif
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
