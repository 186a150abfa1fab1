// The table of this instruction set's kernels.
#include "cpu/kernels.h"
#include "cpu/simd.h"

#define TILEFUSE_TEXT_(x) #x
#define TILEFUSE_TEXT(x) TILEFUSE_TEXT_(x)

#if defined(TILEFUSE_BASE_ISA)

// Another instruction set's kernels but for those that this one has of its own.
namespace tilefuse::inline TILEFUSE_ISA {

void matmul(Team&, const tilefuse_matmul_args&);
Cost matmul_cost(const tilefuse_matmul_args&);

const Kernels& table() {
    static const Kernels kernels = [] {
        Kernels table = TILEFUSE_BASE_ISA::table();
        table.isa = TILEFUSE_TEXT(TILEFUSE_ISA);
        table.matmul = {matmul, matmul_cost};
        return table;
    }();
    return kernels;
}

}  // namespace tilefuse::inline TILEFUSE_ISA

#else

namespace tilefuse::inline TILEFUSE_ISA {

#define TILEFUSE_DECLARE(name)                         \
    void name(Team&, const tilefuse_##name##_args&);   \
    Cost name##_cost(const tilefuse_##name##_args&);
TILEFUSE_KERNELS(TILEFUSE_DECLARE)
#undef TILEFUSE_DECLARE
double peak(Team&, tilefuse_dtype, int64_t turns);

const Kernels& table() {
#define TILEFUSE_ENTRY(name) {name, name##_cost},
    static const Kernels kernels = {TILEFUSE_TEXT(TILEFUSE_ISA), peak, TILEFUSE_KERNELS(TILEFUSE_ENTRY)};
#undef TILEFUSE_ENTRY
    return kernels;
}

}  // namespace tilefuse::inline TILEFUSE_ISA

#endif
