// The table of this instruction set's kernels.
#include "cpu/kernels.h"
#include "cpu/simd.h"

#define TILEFUSE_TEXT_(x) #x
#define TILEFUSE_TEXT(x) TILEFUSE_TEXT_(x)

namespace tilefuse::inline TILEFUSE_ISA {

#define TILEFUSE_DECLARE(name)                       \
    void name(Team&, const tilefuse_##name##_args&); \
    Cost name##_cost(const tilefuse_##name##_args&);

double peak(Team&, tilefuse_dtype, tilefuse_precision, int64_t turns);

#if defined(TILEFUSE_BASE_ISA)

// Another instruction set's kernels but for those that this one has of its own.
TILEFUSE_OWN_KERNELS(TILEFUSE_DECLARE)

const Kernels& table() {
    static const Kernels kernels = [] {
        Kernels table = TILEFUSE_BASE_ISA::table();
        table.isa = TILEFUSE_TEXT(TILEFUSE_ISA);
        table.peak = peak;
#define TILEFUSE_REPLACE(name) table.name = {name, name##_cost};
        TILEFUSE_OWN_KERNELS(TILEFUSE_REPLACE)
        return table;
    }();
    return kernels;
}

#else

TILEFUSE_KERNELS(TILEFUSE_DECLARE)

const Kernels& table() {
#define TILEFUSE_ENTRY(name) {name, name##_cost},
    static const Kernels kernels = {TILEFUSE_TEXT(TILEFUSE_ISA), peak, TILEFUSE_KERNELS(TILEFUSE_ENTRY)};
    return kernels;
}

#endif

}  // namespace tilefuse::inline TILEFUSE_ISA
