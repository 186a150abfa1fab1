// Source lines of code addresses, from the debug information of the module that they lie in.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "simt/executor.h"

namespace simt {

namespace {

struct Frame {
    std::string function;
    Source source;
};

// The functions that an address lies in, innermost (inlined) first; empty if addr2line or the information is missing.
std::vector<Frame> frames_at(const Dl_info& module, uintptr_t address) {
    std::vector<Frame> frames;
    std::string path;
    for (const char* c = module.dli_fname; *c; c++) path += *c == '\'' ? std::string("'\\''") : std::string(1, *c);
    char command[64];
    std::snprintf(command, sizeof command, " -f -C -i 0x%zx 2>/dev/null", static_cast<size_t>(address));
    FILE* output = popen(("addr2line -e '" + path + "'" + command).c_str(), "r");
    if (!output) return frames;
    std::string lines[2];
    for (int which = 0, c; (c = std::fgetc(output)) != EOF;) {
        if (c != '\n') {
            lines[which] += static_cast<char>(c);
            continue;
        }
        if (which == 1) {  // file:line, perhaps followed by " (discriminator 3)"
            const size_t colon = lines[1].rfind(':');
            if (colon != std::string::npos && lines[1][0] != '?') {
                frames.push_back({lines[0], {lines[1].substr(0, colon), std::atoi(lines[1].c_str() + colon + 1)}});
            }
            lines[0].clear();
            lines[1].clear();
        }
        which = 1 - which;
    }
    pclose(output);
    return frames;
}

bool is_executor(const std::string& file) { return file.find("/simt/device.h") != std::string::npos; }

}  // namespace

Source source_of(const void* code) {
    static std::map<const void*, Source> known;
    const auto found = known.find(code);
    if (found != known.end()) return found->second;
    Source source;
    Dl_info module;
    if (dladdr(code, &module) && module.dli_fname) {
        // The instruction before: `code` is where the call returns to. An executable that is not position-independent
        // has its addresses in its debug information, everything else offsets.
        auto address = reinterpret_cast<uintptr_t>(code) - 1;
        const auto base = reinterpret_cast<uintptr_t>(module.dli_fbase);
        if (base != 0x400000) address -= base;
        for (const Frame& frame : frames_at(module, address)) {
            if (is_executor(frame.source.file)) continue;
            source = frame.source;
            break;
        }
    }
    return known[code] = source;
}

Source source_of(Where where) { return {where.file_name(), static_cast<int>(where.line())}; }

}  // namespace simt
