// A plan in words: its stages, its barriers, its bytes.
#include <cstdio>

#include "program/plan.h"

namespace tilefuse::program {
namespace {

std::string bytes_text(int64_t bytes) {
    char text[32];
    if (bytes < 10 * 1024) {
        std::snprintf(text, sizeof text, "%lld B", static_cast<long long>(bytes));
    } else if (bytes < 10 * 1024 * 1024) {
        std::snprintf(text, sizeof text, "%.1f KiB", static_cast<double>(bytes) / 1024);
    } else {
        std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1024 * 1024));
    }
    return text;
}

}  // namespace

std::string describe(const Spec& spec, const Plan& plan) {
    const char* modes[] = {"train", "evaluate", "predict"};
    const char* dtype = spec.dtype == TILEFUSE_FLOAT32 ? "float32" : "float64";
    int barriers = 0;
    for (const Stage& stage : plan.stages) barriers += stage.barrier;
    std::string text = std::string("Program: ") + modes[static_cast<int>(plan.mode)] + " step, batch " + std::to_string(plan.batch) +
                       ", " + dtype + ", " + std::to_string(plan.stages.size()) + " stages, " + std::to_string(barriers) +
                       (barriers == 1 ? " barrier\n" : " barriers\n");
    int number = 0;
    for (const Stage& stage : plan.stages) {
        if (stage.barrier) text += "      ---- barrier\n";
        char prefix[16];
        std::snprintf(prefix, sizeof prefix, "  %2d  ", ++number);
        text += prefix + stage.text + (stage.enabled ? "" : "  (off: not needed for this data)") + "\n";
    }
    text += "Memory: " + bytes_text(plan.arena_bytes) + " in one arena (" + bytes_text(plan.unshared_bytes) + " without sharing)\n";
    return text;
}

}  // namespace tilefuse::program
