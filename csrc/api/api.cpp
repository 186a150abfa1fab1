// The C API's functions, which csrc/include/tilefuse/tilefuse.h declares: those of the kernels are made from the registry.
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "api/checks.h"
#include "cpu/kernels.h"
#include "tilefuse/tilefuse.h"

namespace tilefuse::api {
namespace {

constexpr size_t alignment = 64;  // of a team's memory

thread_local char last_error[1024] = "";

struct TooSmall : std::runtime_error {
    using std::runtime_error::runtime_error;
};

tilefuse_status failed(const char* function, tilefuse_status status, const char* message) {
    std::snprintf(last_error, sizeof last_error, "%s: %s", function, message);
    return status;
}

// Runs the body; what it throws becomes a status and a text.
template <class Body> tilefuse_status guarded(const char* function, const Body& body) noexcept {
    try {
        body();
        return TILEFUSE_SUCCESS;
    } catch (const std::invalid_argument& error) {
        return failed(function, TILEFUSE_INVALID_ARGUMENT, error.what());
    } catch (const TooSmall& error) {
        return failed(function, TILEFUSE_WORKSPACE_TOO_SMALL, error.what());
    } catch (const std::system_error& error) {
        return failed(function, TILEFUSE_INTERNAL_ERROR, error.what());
    } catch (const std::runtime_error& error) {  // of kernels()
        return failed(function, TILEFUSE_UNAVAILABLE, error.what());
    } catch (const std::exception& error) {
        return failed(function, TILEFUSE_INTERNAL_ERROR, error.what());
    } catch (...) {
        return failed(function, TILEFUSE_INTERNAL_ERROR, "unknown error");
    }
}

// How a kernel runs with these arguments.
template <class Args> struct Launch {
    explicit Launch(const Args* args) {
        if (args == nullptr) throw std::invalid_argument("args is null; expected the kernel's arguments");
        check(*args);
        kernel = &kernels().of(*args);
        cost = kernel->cost(*args);
        threads = threads_for(cost.work);
        const size_t memory = team_memory(threads, cost);
        bytes = memory > 0 ? memory + alignment - 1 : 0;
    }

    const Kernel<Args>* kernel;
    Cost cost;
    int threads;
    size_t bytes;  // of workspace, wherever that begins
};

template <class Args> size_t workspace(const char* function, const Args* args) noexcept {
    size_t bytes = 0;
    guarded(function, [&] { bytes = Launch<Args>(args).bytes; });
    return bytes;
}

template <class Args> tilefuse_status run(const char* function, const Args* args, void* memory, size_t bytes) noexcept {
    return guarded(function, [&] {
        const Launch<Args> launch(args);
        if (bytes < launch.bytes || (memory == nullptr && launch.bytes > 0)) {
            throw TooSmall("the workspace " + (memory == nullptr ? "is null" : "has " + std::to_string(bytes) + " bytes") + "; expected " +
                           std::to_string(launch.bytes) + " bytes, as " + function + "_workspace says");
        }
        const uintptr_t start = (reinterpret_cast<uintptr_t>(memory) + alignment - 1) / alignment * alignment;
        run_team(launch.threads, launch.cost, [&](Team& team) { launch.kernel->run(team, *args); }, reinterpret_cast<void*>(start));
    });
}

}  // namespace
}  // namespace tilefuse::api

extern "C" {

const char* tilefuse_last_error() { return tilefuse::api::last_error; }

int tilefuse_version() { return TILEFUSE_VERSION; }

const char* tilefuse_isa() {
    const char* isa = nullptr;
    tilefuse::api::guarded("tilefuse_isa", [&] { isa = tilefuse::kernels().isa; });
    return isa;
}

int tilefuse_get_num_threads() { return tilefuse::num_threads(); }

tilefuse_status tilefuse_set_num_threads(int n) {
    return tilefuse::api::guarded("tilefuse_set_num_threads", [&] {
        if (n < 0) throw std::invalid_argument("n is " + std::to_string(n) + "; expected 1 or more, or 0 for the default");
        tilefuse::set_num_threads(n);
    });
}

#define TILEFUSE_DEFINE(name)                                                                                             \
    size_t tilefuse_##name##_workspace(const tilefuse_##name##_args* args) {                                              \
        return tilefuse::api::workspace("tilefuse_" #name, args);                                                         \
    }                                                                                                                     \
    tilefuse_status tilefuse_##name(const tilefuse_##name##_args* args, void* workspace, size_t workspace_bytes) {        \
        return tilefuse::api::run("tilefuse_" #name, args, workspace, workspace_bytes);                                   \
    }
TILEFUSE_KERNELS(TILEFUSE_DEFINE)

}  // extern "C"
