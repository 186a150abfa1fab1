// What the programs of these tests share: a table of cases that are run by name, device arrays, comparisons.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cuda/device.cuh"
#include "cuda/launch.h"

using namespace tilefuse::cuda;

inline std::map<std::string, std::function<void()>>& cases() {
    static std::map<std::string, std::function<void()>> table;
    return table;
}
struct Register {
    Register(const char* name, void (*f)()) { cases()[name] = f; }
};
#define CASE(name)                              \
    void name##_case();                         \
    const Register name##_entry(#name, name##_case); \
    void name##_case()

[[noreturn]] inline void failed(const char* what, int line) {
    std::printf("line %d: %s\n", line, what);
    std::fflush(stdout);
    std::_Exit(1);
}
#define EXPECT(...)                                    \
    do {                                               \
        if (!(__VA_ARGS__)) failed(#__VA_ARGS__, __LINE__); \
    } while (0)
#define OK(call) EXPECT((call) == cudaSuccess)

// An array in device memory.
template <class T> class Array {
public:
    explicit Array(size_t n) : size(n) { OK(cudaMalloc(&data, n * sizeof(T))); }
    explicit Array(const std::vector<T>& v) : Array(v.size()) {
        OK(cudaMemcpy(data, v.data(), size * sizeof(T), cudaMemcpyHostToDevice));
    }
    Array(const Array&) = delete;
    ~Array() { cudaFree(data); }
    operator T*() const { return data; }
    std::vector<T> host() const {
        std::vector<T> v(size);
        OK(cudaMemcpy(v.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }

    T* data = nullptr;
    size_t size;
};

// Small integers: every sum of their products is exact.
template <class T> std::vector<T> small_integers(size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<T> v(n);
    for (T& x : v) x = static_cast<T>(static_cast<int>(random() % 15) - 7);
    return v;
}

// Runs the cases that the arguments name, and says which of them passed.
inline void run_cases(int count, char** names) {
    for (int i = 1; i < count; i++) {
        cases().at(names[i])();
        std::printf("%s ok\n", names[i]);
    }
    EXPECT(simt::live_allocations().count == 0);
}
