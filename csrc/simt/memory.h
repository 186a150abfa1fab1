// Device memory and a block's shared memory: where they lie, and which bytes of them are anyone's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

// What memory holds before anything is written to it, and between arrays: a NaN as float and as double.
constexpr uint32_t unwritten = 0x7ff5a5a5u;
void fill_unwritten(void* p, size_t bytes);
const char* first_written(const void* p, size_t bytes);  // null: nothing was

constexpr size_t red_zone_bytes = 256;  // before and after each allocation of device memory
constexpr size_t gap_bytes = 128;       // after each shared array

struct Allocation {
    char* begin;
    size_t bytes;
    bool freed = false;  // kept for a while (checked build), so that its uses are found
    void* shadow = nullptr;

    char* base() const { return begin - red_zone_bytes; }
    size_t whole() const { return (bytes + 3) / 4 * 4 + 2 * red_zone_bytes; }
};
void* allocate(size_t bytes);  // null: no such memory
bool release(void* p);         // false: nothing was allocated there
size_t device_memory();        // in bytes
// The allocation in which p lies, or in whose red zones, or null.
Allocation* allocation_at(const void* p);

struct SharedArray {
    const char* name;  // null: dynamic shared memory
    char* begin;
    size_t bytes;
};
// The array of the running block in which p lies, or in the gap after it, or null.
const SharedArray* shared_array_at(const void* p);
bool is_shared(const void* p);

// The whole of shared memory, as one range of addresses.
constexpr size_t shared_space = 512 * 1024;
char* shared_begin();

}  // namespace simt
