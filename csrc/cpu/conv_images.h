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

// What a pair of bfloat16 numbers consists of: neighbouring channels, the last one of an odd number with 0, or a channel of
// two images, the last one of an odd number with zeros.
enum class Pairs { none, channels, images };

// [n, h, w, c] as elements of products; with `argmax` the gradient before a max-pooling, of which `data` and `argmax` have
// what it left: [n, h / pool.height, w / pool.width, c].
template <class E> struct Images {
    using T = Sum<E>;

    const T* data;
    int64_t n, h, w, c;
    tilefuse_conv2d_pool pool = {};
    const uint8_t* argmax = nullptr;
    bool rounds = false;  // to bfloat16
    Pairs pairs = Pairs::none;

    bool as_they_lie() const { return argmax == nullptr && !rounds; }
    const T* image(int64_t i) const { return data + i * h * w * c; }
    int64_t images() const { return pairs == Pairs::images ? (n + 1) / 2 : n; }
    int64_t pixel() const { return pairs == Pairs::channels ? (c + 1) / 2 : c; }  // elements

    // Numbers that are at hand while rows of `columns` pixels are paired, as copy()'s `lines`.
    static int64_t lines_size(int64_t columns, int64_t pitch) { return is_pair<E> ? 2 * columns * pitch : 0; }

    // to[rows, cols, pitch] = these rows, columns and channels of image (or pair of images) i; zeros past the channels.
    void copy(int64_t i, Range rows, Range cols, Range channels, int64_t pitch, T* lines, E* to) const {
        const int64_t size = (cols.end - cols.begin) * pitch;
        for (int64_t row = rows.begin; row < rows.end; ++row, to += size) {
            if constexpr (!is_pair<E>) {
                copy_row(i, row, cols, channels, pitch, to);
                if (rounds) round_to_bfloat16(size, to);
            } else if (pairs == Pairs::channels) {
                copy_row(i, row, cols, channels, 2 * pitch, lines);
                pair_neighbours(size, lines, to);
            } else {
                copy_row(2 * i, row, cols, channels, pitch, lines);
                if (2 * i + 1 < n) {
                    copy_row(2 * i + 1, row, cols, channels, pitch, lines + size);
                } else {
                    fill_zeros(lines + size, size);
                }
                pair(size, lines, lines + size, to);
            }
        }
    }

private:
    void copy_row(int64_t i, int64_t row, Range cols, Range channels, int64_t pitch, T* to) const {
        argmax ? unpool(i, row, cols, channels, pitch, to) : copy_pixels(i, row, cols, channels, pitch, to);
    }

    void copy_pixels(int64_t i, int64_t row, Range cols, Range channels, int64_t pitch, T* to) const {
        const int64_t count = channels.end - channels.begin;
        const T* from = image(i) + (row * w + cols.begin) * c + channels.begin;
        if (count == c && pitch == c) {
            std::memcpy(to, from, static_cast<size_t>((cols.end - cols.begin) * c) * sizeof(T));
            return;
        }
        for (int64_t col = cols.begin; col < cols.end; ++col, from += c, to += pitch) {
            for_vectors<T>(count, [&](int64_t k, int valid) { store_upto(to + k, load_upto(from + k, valid), valid); });
            for (int64_t k = count; k < pitch; ++k) to[k] = 0;
        }
    }

    // A window's gradient goes to where its maximum was.
    void unpool(int64_t i, int64_t row, Range cols, Range channels, int64_t pitch, T* to) const {
        const int64_t count = channels.end - channels.begin;
        const int64_t windows_h = h / pool.height, windows_w = w / pool.width;
        const int64_t window_row = row / pool.height, first = (row % pool.height) * pool.width;
        const int64_t line = ((i * windows_h + window_row) * windows_w) * c + channels.begin;
        int64_t col = cols.begin;
        for (const int64_t end = window_row < windows_h ? std::min(cols.end, windows_w * pool.width) : col; col < end;) {
            const int64_t window = col / pool.width, left = col % pool.width;
            const int64_t right = std::min(pool.width, end - window * pool.width);
            const T* const from = data + line + window * c;
            const uint8_t* const place = argmax + line + window * c;
            for_vectors<T>(count, [&](int64_t k, int valid) {
                const auto at = load_bytes<T>(place + k, valid);
                const Vec<T> value = load_upto(from + k, valid);
                for (int64_t q = left; q < right; ++q)
                    store_upto(to + (q - left) * pitch + k, at == static_cast<Integers<T>>(first + q) ? value : Vec<T>{},
                               valid);
            });
            for (int64_t q = left; q < right; ++q, to += pitch, ++col)
                for (int64_t k = count; k < pitch; ++k) to[k] = 0;
        }
        fill_zeros(to, (cols.end - col) * pitch);
    }
};

}  // namespace tilefuse::inline TILEFUSE_ISA
