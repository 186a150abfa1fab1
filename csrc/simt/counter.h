// Counts what the accesses of whole warps cost (checked build).
#pragma once

#include "simt/executor.h"

namespace simt {

void start_counting(const Launch&);
void end_warp_accesses();  // the block has met: accesses on either side are not one access of a warp
void end_warp_accesses(unsigned warp);  // all lanes of one warp have
void finish_counting();

// One lane's part of an access; the i-th that each lane makes at a place is one access of the warp. Returns a number
// for the place in the code.
uint32_t count_access(const Thread&, const void* p, size_t bytes, bool shared, bool write, const void* code);
const void* site_code(uint32_t site);

}  // namespace simt
