// Gathering a shuffled batch, and adding up what its rows gave.
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

void gather(Team& team, const tilefuse_gather_args& args) {
    const Range mine = team.range(args.rows);
    const char* src = static_cast<const char*>(args.src);
    char* dst = static_cast<char*>(args.dst);
    const size_t bytes = static_cast<size_t>(args.row_bytes);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
        const int64_t row = args.order ? args.order[i] : i;
        std::memcpy(dst + i * args.row_bytes, src + row * args.row_bytes, bytes);
    }
}

Cost gather_cost(const tilefuse_gather_args& args) {
    Cost cost;
    cost.work = static_cast<double>(args.rows) * static_cast<double>(args.row_bytes);
    return cost;
}

void total(Team& team, const tilefuse_total_args& args) {
    if (team.rank != 0) return;
    double sum = 0;
    for (int64_t i = 0; i < args.n; ++i) sum += args.x[i];
    *args.sum = sum;
}

Cost total_cost(const tilefuse_total_args& args) {
    Cost cost;
    cost.work = static_cast<double>(args.n);
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
