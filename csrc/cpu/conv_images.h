// What convolutions read: images as they lie, or copied to scratch on the way.
#pragma once

#include "cpu/bfloat16.h"
#include "cpu/bytes.h"
#include "cpu/simd.h"
#include "cpu/team.h"
#include "tilefuse/conv.h"

namespace tilefuse::inline TILEFUSE_ISA {

template <class T> inline void fill_zeros(T* to, int64_t count) {
    if (count > 0) std::memset(to, 0, static_cast<size_t>(count) * sizeof(T));
}

// [n, h, w, c]; with `argmax` the gradient before a max-pooling, of which `data` and `argmax` have what it left:
// [n, h / pool.height, w / pool.width, c].
template <class T> struct Images {
    const T* data;
    int64_t h, w, c;
    tilefuse_conv2d_pool pool = {};
    const uint8_t* argmax = nullptr;
    bool rounds = false;  // to bfloat16

    bool as_they_lie() const { return argmax == nullptr && !rounds; }
    const T* image(int64_t n) const { return data + n * h * w * c; }

    // to[rows, cols, pitch] = these rows, columns and channels of image n; zeros past the channels.
    void copy(int64_t n, Range rows, Range cols, Range channels, int64_t pitch, T* to) const {
        const int64_t size = (cols.end - cols.begin) * pitch;
        for (int64_t row = rows.begin; row < rows.end; ++row, to += size) {
            argmax ? unpool(n, row, cols, channels, pitch, to) : copy_row(n, row, cols, channels, pitch, to);
            if (rounds) round_to_bfloat16(size, to);
        }
    }

private:
    void copy_row(int64_t n, int64_t row, Range cols, Range channels, int64_t pitch, T* to) const {
        const int64_t count = channels.end - channels.begin;
        const T* from = image(n) + (row * w + cols.begin) * c + channels.begin;
        if (count == c && pitch == c) {
            std::memcpy(to, from, static_cast<size_t>((cols.end - cols.begin) * c) * sizeof(T));
            return;
        }
        for (int64_t col = cols.begin; col < cols.end; ++col, from += c, to += pitch) {
            for_vectors<T>(count, [&](int64_t i, int lanes_left) { store_upto(to + i, load_upto(from + i, lanes_left), lanes_left); });
            for (int64_t i = count; i < pitch; ++i) to[i] = 0;
        }
    }

    // A window's gradient goes to where its maximum was.
    void unpool(int64_t n, int64_t row, Range cols, Range channels, int64_t pitch, T* to) const {
        const int64_t count = channels.end - channels.begin;
        const int64_t windows_h = h / pool.height, windows_w = w / pool.width;
        const int64_t window_row = row / pool.height, first = (row % pool.height) * pool.width;
        const int64_t line = ((n * windows_h + window_row) * windows_w) * c + channels.begin;
        int64_t col = cols.begin;
        for (const int64_t end = window_row < windows_h ? std::min(cols.end, windows_w * pool.width) : col; col < end;) {
            const int64_t window = col / pool.width, left = col % pool.width;
            const int64_t right = std::min(pool.width, end - window * pool.width);
            const T* const from = data + line + window * c;
            const uint8_t* const place = argmax + line + window * c;
            for_vectors<T>(count, [&](int64_t i, int valid) {
                const auto at = load_bytes<T>(place + i, valid);
                const Vec<T> value = load_upto(from + i, valid);
                for (int64_t q = left; q < right; ++q)
                    store_upto(to + (q - left) * pitch + i, at == static_cast<Integers<T>>(first + q) ? value : Vec<T>{}, valid);
            });
            for (int64_t q = left; q < right; ++q, to += pitch, ++col)
                for (int64_t i = count; i < pitch; ++i) to[i] = 0;
        }
        fill_zeros(to, (cols.end - col) * pitch);
    }
};

}  // namespace tilefuse::inline TILEFUSE_ISA
