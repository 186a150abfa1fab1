// The tiles of products, for all that multiplies with them.
#include "cpu/matmul_tile.h"

namespace tilefuse::inline TILEFUSE_ISA {

template <class T> constinit const Tiles<T> Tiles<T>::all;

template struct Tiles<float>;
template struct Tiles<double>;

}  // namespace tilefuse::inline TILEFUSE_ISA
