// The checked build's part of a launch: what block.cpp tells checker.cpp.
#pragma once

#include "simt/executor.h"

namespace simt {

void start_checking(const Launch&);
void start_checking_block(size_t shared_used);  // by the block before it, in bytes from the beginning
void finish_checking();
void block_has_met();                          // at its barrier
void warp_has_met(unsigned warp, unsigned lanes);

// An access by a thread: all rules hold for it. The code address is where.
void check_access(Thread&, const void* p, size_t bytes, Access, const void* code);
bool make_shadow(Allocation&);                 // false: no memory for it
void drop_shadow(Allocation&);
void mark_written(void* p, size_t bytes);      // by the host, in device memory
void check_copy_start(Thread&, const Copy&);   // its target may not be touched
void check_copy_end(Thread&, const Copy&);     // it has been written, by this thread, now

}  // namespace simt
