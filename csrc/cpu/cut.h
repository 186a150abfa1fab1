// A kernel's scratch and shared memory, cut into the arrays that it needs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {

// Memory cut into arrays; from nullptr, only to learn how much it takes.
class Cut {
public:
    explicit Cut(void* memory) : start_(static_cast<char*>(memory)) {}
    template <class V> V* take(int64_t count) {
        V* const array = reinterpret_cast<V*>(start_ + size_);
        size_ += (static_cast<size_t>(count) * sizeof(V) + 63) / 64 * 64;
        return array;
    }
    size_t size() const { return size_; }

private:
    char* start_;
    size_t size_ = 0;
};

}  // namespace tilefuse::inline TILEFUSE_ISA
