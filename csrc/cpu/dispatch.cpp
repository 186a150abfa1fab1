// Chooses the instruction set, once, when a kernel is first asked for.
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "cpu/kernels.h"

namespace tilefuse {

// Defined by csrc/cpu/table.cpp, compiled once per instruction set.
#define TILEFUSE_ISA_BUILT(isa) \
    namespace isa {             \
    const Kernels& table();     \
    }
#include "isas.inc"
#undef TILEFUSE_ISA_BUILT

namespace {

bool processor_has(const std::string& isa) {
    if (isa == "baseline") return true;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (isa == "avx2" || isa == "wide") return avx2;
    if (isa == "avx512") {
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
#endif
    return false;
}

struct Isa {
    const char* name;
    const Kernels& (*table)();
};

// From the plainest to the best.
constexpr Isa built[] = {
#define TILEFUSE_ISA_BUILT(isa) {#isa, isa::table},
#include "isas.inc"
#undef TILEFUSE_ISA_BUILT
};

constexpr std::string_view wide = "wide";  // for tests alone: see TILEFUSE_EMULATE_AVX512

const Kernels& choose() {
    const char* asked = std::getenv("TILEFUSE_ISA");
    const bool any = asked == nullptr || *asked == '\0';
    const Isa* best = nullptr;
    for (const Isa& isa : built)
        if ((any ? isa.name != wide : asked == std::string(isa.name)) && processor_has(isa.name)) best = &isa;
    if (best != nullptr) return best->table();
    std::string names;
    for (const std::string& name : available_isas()) names += (names.empty() ? "" : ", ") + name;
    throw std::runtime_error("TILEFUSE_ISA is '" + std::string(asked) + "', which this build or this processor does not have; use one of: " +
                             names + "; or unset it to let tilefuse choose");
}

}  // namespace

const Kernels& kernels() {
    static const Kernels& chosen = choose();
    return chosen;
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : built)
        if (processor_has(isa.name)) names.emplace_back(isa.name);
    return names;
}

}  // namespace tilefuse
