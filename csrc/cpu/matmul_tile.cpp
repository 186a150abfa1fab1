// The tiles of products, for all that multiplies with them.
#include "cpu/matmul_tile.h"

namespace tilefuse::inline TILEFUSE_ISA {

template <class E> constinit const Tiles<E> Tiles<E>::all;

#if !defined(TILEFUSE_BASE_ISA)  // else it is there that numbers are multiplied
template struct Tiles<float>;
template struct Tiles<double>;
#endif
#if TILEFUSE_MULTIPLIES_PAIRS
template struct Tiles<Pair>;
#endif

}  // namespace tilefuse::inline TILEFUSE_ISA
