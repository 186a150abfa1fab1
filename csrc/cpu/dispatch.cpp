// Chooses the instruction set, once, when a kernel is first asked for.
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

// For tests alone: see TILEFUSE_EMULATE_AVX512 and TILEFUSE_EMULATE_AMX.
bool is_emulated(std::string_view isa) { return isa == "wide" || isa == "wide_amx" || isa == "emulated_amx"; }

#if defined(__x86_64__)
// (__builtin_cpu_supports knows AMX by no name in all compilers.) CPUID leaf 7: EDX bits 22 and 24.
bool processor_has_amx() {
    unsigned a, b, c, d;
    constexpr unsigned bfloat16 = 1u << 22, tile = 1u << 24;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bfloat16) && (d & tile);
}

// Asks Linux for the tile registers, for all threads of this process: their state is large, and not saved unasked.
bool may_use_amx() {
    constexpr long request_permission = 0x1023, tile_data = 18;  // arch_prctl's ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

bool processor_has(const std::string& isa) {
    if (isa == "baseline") return true;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (isa == "avx2" || isa == "wide" || isa == "wide_amx") return avx2;
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (isa == "avx512" || isa == "emulated_amx") return avx512;
    const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    if (isa == "avx512_bf16") return avx512_bf16;
    if (isa == "amx") return avx512_bf16 && processor_has_amx() && may_use_amx();
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

const Kernels& choose() {
    const char* asked = std::getenv("TILEFUSE_ISA");
    const bool any = asked == nullptr || *asked == '\0';
    const Isa* best = nullptr;
    for (const Isa& isa : built)
        if ((any ? !is_emulated(isa.name) : asked == std::string(isa.name)) && processor_has(isa.name)) best = &isa;
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
