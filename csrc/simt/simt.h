// The executor: runs CUDA kernels on the CPU, each thread of a block as a fibre. For host code. See README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "simt/cuda_runtime.h"

namespace simt {

// Whether this is the checked build, in which kernels are compiled with -fsanitize=thread.
#if defined(TILEFUSE_SIMT_CHECKED)
inline constexpr bool checked = true;
// (noipa: else the compiler may move a function's accesses to its caller.)
#define TILEFUSE_SIMT_UNSEEN __attribute__((noipa, no_sanitize("thread")))
#else
inline constexpr bool checked = false;
#define TILEFUSE_SIMT_UNSEEN
#endif

// ---- findings -------------------------------------------------------------------------------------------------------

// Where in the source, as far as it is known.
struct Source {
    std::string file;  // empty: not known
    int line = 0;
    std::string text() const { return file.empty() ? "an unknown line" : file + ":" + std::to_string(line); }
};

// What a kernel did wrong: thrown from the launch, which ends there. The next launch works.
struct Finding : std::runtime_error {
    Finding(const std::string& kind, const std::string& kernel, const std::string& text);
    Finding(const std::string& kind, const std::string& kernel, uint3 block, uint3 thread, const Source&,
            const std::string& text);

    std::string kind;    // "race", "out of bounds", ...: README.md lists them
    std::string kernel;
    uint3 block{}, thread{};
    Source source;       // no file: which block and thread it was is not known either
};

// ---- launching ------------------------------------------------------------------------------------------------------

struct Launch {
    const char* kernel;
    const void* function;
    dim3 grid, block;
    size_t shared_bytes;  // dynamic shared memory
    void (*call)(const void* arguments);  // the kernel, for the running thread
    const void* arguments;
    std::shared_ptr<const void> (*keep)(const void* arguments);  // a copy of them
};
cudaError_t queue(const Launch&, cudaStream_t);
size_t most_shared_bytes(const void* function);  // static and dynamic together: more than 48 KB must be asked for

template <class... P> struct Call {
    void (*function)(P...);
    std::tuple<P...> arguments;

    template <size_t... I> TILEFUSE_SIMT_UNSEEN void run(std::index_sequence<I...>) const {
        function(std::get<I>(arguments)...);
    }
    TILEFUSE_SIMT_UNSEEN static void call(const void* self) {
        static_cast<const Call*>(self)->run(std::index_sequence_for<P...>{});
    }
    static std::shared_ptr<const void> keep(const void* self) {
        return std::make_shared<const Call>(*static_cast<const Call*>(self));
    }
};

// As kernel<<<grid, block, shared_bytes, stream>>>(arguments...), with the error that a GPU would give. Runs at once,
// or is recorded while `stream` is being captured. `kernel` must outlive the graph.
template <class... P>
cudaError_t launch(const char* kernel, void (*function)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, std::type_identity_t<P>... arguments) {
    static_assert((std::is_trivially_copyable_v<P> && ...), "a kernel's parameters are copied byte by byte");
    static_assert((sizeof(P) + ... + 0) <= 4096, "a kernel's parameters take up to 4 KB");
    const Call<P...> call{function, {arguments...}};
    return queue({kernel, reinterpret_cast<const void*>(function), grid, block, shared_bytes, Call<P...>::call, &call, Call<P...>::keep}, stream);
}

// Registers that a thread of this kernel uses, from nvcc's report: launches with more than 65536 a block are refused.
void set_registers(const std::string& kernel, int registers);

// The order in which the threads of a block, and the blocks, run whenever several could. From TILEFUSE_SIMT_ORDER
// ("forward", "reverse", "random" or "random:<seed>") until set here.
enum class Order { forward, reverse, random };
void set_order(Order, uint64_t seed = 0);
void set_order(const std::string&);  // as in the variable; throws std::invalid_argument

// ---- device memory --------------------------------------------------------------------------------------------------

bool owns(const void*);  // whether it points into device memory
struct Usage {
    size_t count, bytes;
};
Usage live_allocations();

// ---- what host code asked for, since the process began -------------------------------------------------------------

struct Calls {
    uint64_t captures;        // of streams to graphs, that came to their end
    uint64_t graph_launches;
    uint64_t waits;           // for the device: a GPU's copies to the host's pageable memory are among them
};
Calls calls();

// ---- counts (checked build) -----------------------------------------------------------------------------------------

// What the accesses of whole warps at one place in the source came to.
struct AccessCount {
    Source source;
    bool shared = false;     // shared memory; else global
    bool write = false;
    uint64_t accesses = 0;   // by warps
    uint64_t bytes = 0;      // different ones that each of these asked for, summed
    uint64_t transfers = 0;  // global: sectors of 32 bytes; shared: wavefronts
    uint64_t ideal = 0;      // the fewest that such bytes need
};
struct LaunchCount {
    std::string kernel;
    dim3 grid, block;
    std::vector<AccessCount> accesses;
    AccessCount total(bool shared) const;
};
std::vector<LaunchCount> counts();  // of the launches since the last reset, the last 1000 of them
void reset_counts();

// ---- where the running thread is ------------------------------------------------------------------------------------

struct BlockPlace {
    uint3 block;
    dim3 block_size, grid_size;
};
struct ThreadPlace {
    uint3 thread;
    const BlockPlace* block;
};

#if defined(TILEFUSE_SIMT_CHECKED)
// (Not inline, so that the hooks don't see what they read. `const` holds: a fibre is one thread from start to end.)
[[gnu::const]] uint3 thread_index();
[[gnu::const]] uint3 block_index();
[[gnu::const]] dim3 block_size();
[[gnu::const]] dim3 grid_size();
#else
extern thread_local const ThreadPlace* place __attribute__((tls_model("initial-exec")));
inline uint3 thread_index() { return place->thread; }
inline uint3 block_index() { return place->block->block; }
inline dim3 block_size() { return place->block->block_size; }
inline dim3 grid_size() { return place->block->grid_size; }
#endif

}  // namespace simt

#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index())
#define blockDim (::simt::block_size())
#define gridDim (::simt::grid_size())
