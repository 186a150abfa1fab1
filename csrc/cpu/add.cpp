// Sums of two arrays. A member's rows are one flat range: rows mean nothing here but shares.
#include "tilefuse/add.h"

#include <algorithm>
#include <cstring>

#include "common/dtype.h"
#include "cpu/kernels.h"
#include "cpu/matmul_epilogue.h"

namespace tilefuse::inline TILEFUSE_ISA {

void add(Team& team, const tilefuse_add_args& args) {
    constexpr int64_t piece = 1024;  // elements that stay in L1 while the epilogue passes over them
    const Range rows = team.range(args.rows);
    const int64_t end = rows.end * args.cols;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const T* x = static_cast<const T*>(args.x);
        T* y = static_cast<T*>(args.y);
        const Epilogue<T> epilogue(args.epilogue, end, end);
        for (int64_t first = rows.begin * args.cols; first < end; first += piece) {
            const int64_t count = std::min(piece, end - first);
            if (x != y) std::memcpy(y + first, x + first, static_cast<size_t>(count) * sizeof(T));
            epilogue(y + first, end, 0, 0, first, 1, count);
        }
    });
}

Cost add_cost(const tilefuse_add_args& args) {
    Cost cost;
    const bool simple = args.epilogue.activation <= TILEFUSE_LEAKY_RELU && args.epilogue.derivative <= TILEFUSE_LEAKY_RELU;
    cost.work = static_cast<double>(args.rows * args.cols) * (simple ? 4 : 40);
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
