#include "simt/counter.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <memory>

namespace simt {

AccessCount LaunchCount::total(bool shared) const {
    AccessCount sum;
    sum.shared = shared;
    for (const AccessCount& a : accesses) {
        if (a.shared != shared) continue;
        sum.accesses += a.accesses;
        sum.bytes += a.bytes;
        sum.transfers += a.transfers;
        sum.ideal += a.ideal;
    }
    return sum;
}

#if defined(TILEFUSE_SIMT_CHECKED)

namespace {

constexpr uintptr_t sector_bytes = 32;
constexpr unsigned banks = 32;  // of 4 bytes
constexpr size_t kept_launches = 1000;

// An access by a warp, as far as its lanes have come to it.
struct WarpAccess {
    unsigned lanes = 0;
    uintptr_t address[warp_size];
    uint8_t bytes[warp_size];
};

// A place in the code, and the accesses there that not all lanes have made yet.
struct Site {
    const void* code;
    AccessCount count;
    uint64_t launch = 0;  // that `count` is of

    struct Warp {
        uint64_t epoch = 0;
        unsigned done[warp_size] = {};  // accesses by each lane
        unsigned closed = 0;            // accesses that all lanes have made
        std::vector<WarpAccess> open;   // a ring, of 2^n
        WarpAccess& of(size_t i) { return open[i & (open.size() - 1)]; }
    };
    Warp warp[max_warps];
};

std::vector<std::unique_ptr<Site>> sites(1);  // 0: none
std::vector<uint32_t> table(1 << 12);         // of sites, by a hash of their code address; 0: free
std::vector<uint32_t> touched;                // by this launch
uint64_t epoch = 1, launch_number = 0, launch_epoch = 0;
uint64_t meetings[max_warps] = {};            // of all lanes of a warp, in this launch
std::deque<std::pair<LaunchCount, std::vector<const void*>>> launches;

uint64_t epoch_of(unsigned warp) { return epoch + meetings[warp]; }

uint32_t* slot_of(const void* code, bool shared) {
    const size_t mask = table.size() - 1;
    size_t i = (reinterpret_cast<uintptr_t>(code) * 0x9e3779b97f4a7c15u >> 40) + shared;
    for (;; i++) {
        uint32_t& slot = table[i & mask];
        if (!slot || (sites[slot]->code == code && sites[slot]->count.shared == shared)) return &slot;
    }
}

uint32_t site_at(const void* code, bool shared, bool write) {
    uint32_t* slot = slot_of(code, shared);
    if (*slot) return *slot;
    if (sites.size() * 2 > table.size()) {
        table.assign(table.size() * 2, 0);
        for (uint32_t s = 1; s < sites.size(); s++) *slot_of(sites[s]->code, sites[s]->count.shared) = s;
        slot = slot_of(code, shared);
    }
    sites.push_back(std::make_unique<Site>());
    Site& site = *sites.back();
    site.code = code;
    site.count.shared = shared;
    site.count.write = write;
    return *slot = static_cast<uint32_t>(sites.size() - 1);
}

// ---- what an access costs -------------------------------------------------------------------------------------------

// Each sector once, however many lanes want it.
void count_sectors(const WarpAccess& access, AccessCount& count) {
    struct Span {
        uintptr_t begin, end;
    };
    Span spans[warp_size];
    unsigned n = 0;
    bool sorted = true;
    for (unsigned lanes = access.lanes; lanes; lanes &= lanes - 1) {
        const int lane = std::countr_zero(lanes);
        spans[n++] = {access.address[lane], access.address[lane] + access.bytes[lane]};
        if (n > 1) sorted = sorted && spans[n - 2].begin <= spans[n - 1].begin;
    }
    if (!sorted) std::sort(spans, spans + n, [](Span a, Span b) { return a.begin < b.begin; });
    uintptr_t bytes_end = 0, sectors_end = 0, bytes = 0, sectors = 0;
    for (unsigned i = 0; i < n; i++) {
        const uintptr_t begin = std::max(spans[i].begin, bytes_end);
        if (begin >= spans[i].end) continue;
        bytes += spans[i].end - begin;
        bytes_end = spans[i].end;
        const uintptr_t first = std::max(begin / sector_bytes, sectors_end);
        const uintptr_t end = (spans[i].end - 1) / sector_bytes + 1;
        if (end > first) sectors += end - first;
        sectors_end = std::max(sectors_end, end);
    }
    count.bytes += bytes;
    count.transfers += sectors;
    count.ideal += (bytes + sector_bytes - 1) / sector_bytes;
}

// The lanes take their turns in groups that could get their data at once: all 32 of them with up to 4 bytes each, 16
// with 8 bytes, 8 with 16. A group takes as many wavefronts as it wants different words of one bank.
void count_wavefronts(const WarpAccess& access, AccessCount& count) {
    unsigned widest = 4;
    for (unsigned lanes = access.lanes; lanes; lanes &= lanes - 1) {
        widest = std::max<unsigned>(widest, access.bytes[std::countr_zero(lanes)]);
    }
    const unsigned group = widest > 8 ? 8 : widest > 4 ? 16 : 32;
    for (unsigned from = 0; from < warp_size; from += group) {
        uintptr_t words[banks][banks];  // different ones of each bank; a group has at most 32 lanes' or 8 x 4 words
        unsigned counts[banks] = {}, wavefronts = 0, different = 0;
        for (unsigned lane = from; lane < from + group; lane++) {
            if (!(access.lanes >> lane & 1u)) continue;
            const uintptr_t end = (access.address[lane] + access.bytes[lane] - 1) / 4;
            for (uintptr_t word = access.address[lane] / 4; word <= end; word++) {
                const unsigned bank = word % banks;
                uintptr_t* of_bank = words[bank];
                if (std::find(of_bank, of_bank + counts[bank], word) != of_bank + counts[bank]) continue;
                if (counts[bank] < banks) of_bank[counts[bank]++] = word;
                wavefronts = std::max(wavefronts, counts[bank]);
                different++;
            }
        }
        count.bytes += different * 4;
        count.transfers += wavefronts;
        count.ideal += (different + banks - 1) / banks;
    }
}

void close(Site& site, const WarpAccess& access) {
    site.count.accesses++;
    if (site.count.shared) {
        count_wavefronts(access, site.count);
    } else {
        count_sectors(access, site.count);
    }
}

// Its accesses as far as they go: some lanes have not come to them, and won't.
void close_all(Site& site, unsigned number) {
    Site::Warp& warp = site.warp[number];
    for (WarpAccess& access : warp.open) {
        if (access.lanes && warp.epoch >= launch_epoch) close(site, access);  // else a finding ended that launch
        access.lanes = 0;
    }
    warp.closed = 0;
    std::fill(std::begin(warp.done), std::end(warp.done), 0);
    warp.epoch = epoch_of(number);
}

// Room for one access more, in the ring.
void grow(Site::Warp& warp) {
    const size_t size = warp.open.size();
    std::vector<WarpAccess> old = std::exchange(warp.open, std::vector<WarpAccess>(size ? 2 * size : 4));
    for (size_t i = warp.closed; i < warp.closed + size; i++) warp.of(i) = old[i & (size - 1)];
}

}  // namespace

uint32_t count_access(const Thread& me, const void* p, size_t bytes, bool shared, bool write, const void* code) {
    const uint32_t index = site_at(code, shared, write);
    Site& site = *sites[index];
    if (site.launch != launch_number) {
        site.launch = launch_number;
        AccessCount& c = site.count;
        c.accesses = c.bytes = c.transfers = c.ideal = 0;
        touched.push_back(index);
    }
    Site::Warp& warp = site.warp[me.warp()];
    if (warp.epoch != epoch_of(me.warp())) close_all(site, me.warp());
    const unsigned lane = me.lane(), number = warp.done[lane]++;
    while (number - warp.closed >= warp.open.size()) grow(warp);
    WarpAccess& access = warp.of(number);
    access.address[lane] = reinterpret_cast<uintptr_t>(p);
    access.bytes[lane] = static_cast<uint8_t>(bytes);
    access.lanes |= 1u << lane;
    for (;;) {
        WarpAccess& oldest = warp.of(warp.closed);
        if (oldest.lanes != ~0u) break;
        close(site, oldest);
        oldest.lanes = 0;
        warp.closed++;
    }
    return index;
}

const void* site_code(uint32_t site) { return sites[site]->code; }

void start_counting(const Launch&) {
    launch_number++;
    epoch += *std::max_element(std::begin(meetings), std::end(meetings));  // so that epochs only grow
    std::fill(std::begin(meetings), std::end(meetings), 0);
    launch_epoch = ++epoch;
    touched.clear();
}

void end_warp_accesses() { epoch++; }
void end_warp_accesses(unsigned warp) { meetings[warp]++; }

void finish_counting() {
    auto& [launch, codes] = launches.emplace_back();
    launch.kernel = block.launch->kernel;
    launch.grid = block.launch->grid;
    launch.block = block.launch->block;
    epoch++;
    for (const uint32_t index : touched) {
        Site& site = *sites[index];
        for (unsigned warp = 0; warp < max_warps; warp++) close_all(site, warp);
        launch.accesses.push_back(site.count);
        codes.push_back(site.code);
    }
    if (launches.size() > kept_launches) launches.pop_front();
}

std::vector<LaunchCount> counts() {
    std::lock_guard lock(mutex);
    std::vector<LaunchCount> result;
    for (auto& [launch, codes] : launches) {
        for (size_t i = 0; i < codes.size(); i++) {
            if (!launch.accesses[i].source.line) launch.accesses[i].source = source_of(codes[i]);
        }
        result.push_back(launch);
    }
    return result;
}

void reset_counts() {
    std::lock_guard lock(mutex);
    launches.clear();
}

#else

std::vector<LaunchCount> counts() { return {}; }
void reset_counts() {}

#endif

}  // namespace simt
