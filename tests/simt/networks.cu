// Whole networks in one kernel: forward and backward with integers, whose sums are exact; the accuracy of operands that
// are split for matrix units; traffic.
#include "cuda/mlp.cu"

#include <cmath>
#include <deque>

#include "harness.h"

namespace {

using Values = std::vector<float>;

float rounded(tilefuse_mlp_precision precision, float x) {
    if (precision == TILEFUSE_MLP_BFLOAT16) return __bfloat162float(__float2bfloat16_rn(x));
    if (precision == TILEFUSE_MLP_FLOAT16) return __half2float(__float2half_rn(x));
    return x;
}

// sums[rows, columns] of products of a's and b's elements, which are rounded as the precision says.
template <class A, class B>
Values product(tilefuse_mlp_precision precision, int rows, int columns, int depth, A a, B b) {
    Values sums(static_cast<size_t>(rows * columns));
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) {
            float sum = 0;
            for (int k = 0; k < depth; ++k) sum += rounded(precision, a(i, k)) * rounded(precision, b(k, j));
            sums[static_cast<size_t>(i * columns + j)] = sum;
        }
    return sums;
}

Values ones(size_t n, unsigned seed) {  // -1, 0 and 1
    Values v = small_integers<float>(n, seed);
    for (float& x : v) x = x < -2 ? -1.0f : x > 2 ? 1.0f : 0.0f;
    return v;
}

struct Case {
    int batch, inputs;
    std::vector<int> outputs;
};

// All arrays `shift` elements after where they could be aligned.
void check_network(tilefuse_mlp_precision precision, const Case& c, int shift) {
    struct OfLayer {
        Values w, b;
        Array<float>*y, *z, *dz, *dw, *db;
        std::vector<uint8_t> mask;  // of every second layer
    };
    std::deque<Array<float>> arrays;
    std::deque<Array<uint8_t>> masks;
    const auto put = [&](const Values& v) {
        Values shifted(static_cast<size_t>(shift));
        shifted.insert(shifted.end(), v.begin(), v.end());
        return &arrays.emplace_back(shifted);
    };
    const auto room = [&](int n) { return put(Values(static_cast<size_t>(n), NAN)); };
    const auto get = [&](const Array<float>* array) {
        const Values v = array->host();
        return Values(v.begin() + shift, v.end());
    };
    const size_t batch = static_cast<size_t>(c.batch);
    const Values x = ones(batch * static_cast<size_t>(c.inputs), 1);
    const Values dy = ones(batch * static_cast<size_t>(c.outputs.back()), 2);
    tilefuse_mlp_args args = {};
    args.precision = precision;
    args.batch = c.batch;
    args.inputs = c.inputs;
    args.x = put(x)->data + shift;
    args.dy = put(dy)->data + shift;
    Array<float>* const dx = room(c.batch * c.inputs);
    args.dx = dx->data + shift;
    std::vector<OfLayer> layers;
    int inputs = c.inputs;
    for (const int n : c.outputs) {
        const auto seed = static_cast<unsigned>(3 + 2 * layers.size());
        layers.push_back({ones(static_cast<size_t>(inputs * n), seed), ones(static_cast<size_t>(n), seed + 1),
                          room(c.batch * n), room(c.batch * n), room(c.batch * n), room(inputs * n), room(n), {}});
        OfLayer& l = layers.back();
        tilefuse_mlp_layer& to = args.layer[args.layers++];
        to.outputs = n;
        to.activation = TILEFUSE_RELU;
        to.w = put(l.w)->data + shift;
        to.b = put(l.b)->data + shift;
        to.z = l.z->data + shift;
        to.y = l.y->data + shift;
        to.dz = l.dz->data + shift;
        to.dw = l.dw->data + shift;
        to.db = l.db->data + shift;
        if (layers.size() % 2 == 1) {
            for (int i = 0; i < shift + c.batch * n; ++i) l.mask.push_back((i - shift) % 3 != 0);
            to.mask = masks.emplace_back(l.mask).data + shift;
            to.mask_scale = 2;
            l.mask.erase(l.mask.begin(), l.mask.begin() + shift);
        }
        inputs = n;
    }
    mlp({nullptr, nullptr}, args);
    args.backward = 1;
    const Array<char> workspace(mlp_workspace(args));
    mlp({nullptr, workspace.data}, args);

    std::vector<Values> in = {x};
    inputs = c.inputs;
    for (const OfLayer& l : layers) {
        const int n = static_cast<int>(l.b.size());
        const Values& from = in.back();
        Values z = product(
            precision, c.batch, n, inputs, [&](int i, int k) { return from[static_cast<size_t>(i * inputs + k)]; },
            [&](int k, int j) { return l.w[static_cast<size_t>(k * n + j)]; });
        for (size_t i = 0; i < z.size(); ++i) z[i] += l.b[i % static_cast<size_t>(n)];
        EXPECT(get(l.z) == z);
        for (float& v : z) v = std::max(v, 0.0f);
        for (size_t i = 0; i < l.mask.size(); ++i) z[i] *= l.mask[i] ? 2 : 0;
        EXPECT(get(l.y) == z);
        in.push_back(z);
        inputs = n;
    }
    Values g = dy;
    for (size_t layer = layers.size(); layer-- > 0;) {
        const OfLayer& l = layers[layer];
        const Values& from = in[layer];
        const int n = static_cast<int>(l.b.size()), depth = static_cast<int>(l.w.size()) / n;
        for (size_t i = 0; i < l.mask.size(); ++i) g[i] *= l.mask[i] ? 2 : 0;
        for (size_t i = 0; i < g.size(); ++i) g[i] = in[layer + 1][i] > 0 ? g[i] : 0;
        const auto dz = [&](int i, int j) { return g[static_cast<size_t>(i * n + j)]; };
        EXPECT(get(l.dz) == g);
        EXPECT(get(l.db) == product(TILEFUSE_MLP_FMA, 1, n, c.batch, [](int, int) { return 1.0f; }, dz));
        EXPECT(get(l.dw) == product(precision, depth, n, c.batch,
                                    [&](int i, int k) { return from[static_cast<size_t>(k * depth + i)]; }, dz));
        g = product(precision, c.batch, depth, n, dz,
                    [&](int k, int j) { return l.w[static_cast<size_t>(j * n + k)]; });
    }
    EXPECT(get(dx) == g);
}

const Case shapes[] = {
    {1, 1, {1}},       {31, 3, {7, 2}},      {32, 32, {32, 32}},   {33, 31, {33, 64, 1}},
    {65, 64, {65, 9}}, {40, 127, {127, 10}}, {32, 128, {128, 128}}, {64, 129, {100, 31, 5}},
    {35, 260, {20}},   {0, 5, {3, 2}},       {3, 2, {2, 3, 4, 5, 6, 7, 8, 9}},
};

#define PRECISION(name)                                                    \
    CASE(name##_shapes) {                                                  \
        for (const Case& shape : shapes)                                   \
            for (const int shift : {0, 1}) check_network(name, shape, shift); \
    }
PRECISION(TILEFUSE_MLP_FMA)
PRECISION(TILEFUSE_MLP_SPLIT)
PRECISION(TILEFUSE_MLP_BFLOAT16)
PRECISION(TILEFUSE_MLP_FLOAT16)

CASE(more_rows_than_blocks_can_take) { check_network(TILEFUSE_MLP_FMA, {32 * 256 + 70, 3, {4, 2}}, 0); }

Values layer_of(tilefuse_mlp_precision precision, int batch, const Values& x, const Values& w, int n) {
    const Array<float> device_x(x), device_w(w);
    Array<float> y(static_cast<size_t>(batch * n));
    tilefuse_mlp_args args = {};
    args.precision = precision;
    args.batch = batch;
    args.inputs = static_cast<int64_t>(x.size()) / batch;
    args.layers = 1;
    args.x = device_x.data;
    args.layer[0].outputs = n;
    args.layer[0].w = device_w.data;
    args.layer[0].y = y.data;
    mlp({nullptr, nullptr}, args);
    return y.host();
}

CASE(split_operands_are_as_accurate) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    constexpr int batch = 64, n = 64;
    for (const int depth : {1, 2, 7, 16, 64, 300}) {
        Values x(static_cast<size_t>(batch * depth)), w(static_cast<size_t>(depth * n));
        for (float& v : x) v = normal(random);
        for (float& v : w) v = normal(random);
        double errors[2] = {};
        for (const auto precision : {TILEFUSE_MLP_FMA, TILEFUSE_MLP_SPLIT}) {
            const Values y = layer_of(precision, batch, x, w, n);
            for (int i = 0; i < batch; ++i)
                for (int j = 0; j < n; ++j) {
                    double sum = 0;
                    for (int k = 0; k < depth; ++k) {
                        const double of_x = x[static_cast<size_t>(i * depth + k)];
                        sum += of_x * w[static_cast<size_t>(k * n + j)];
                    }
                    const double error = y[static_cast<size_t>(i * n + j)] - sum;
                    errors[precision] += error * error;
                }
        }
        EXPECT(errors[TILEFUSE_MLP_SPLIT] <= 1.01 * errors[TILEFUSE_MLP_FMA]);
    }
}

CASE(split_operands_keep_infinity_and_nan) {
    constexpr float largest = 3.4028235e38f;
    const Values x = {INFINITY, -INFINITY, NAN, largest, -largest, 1e-30f};
    const Values y = layer_of(TILEFUSE_MLP_SPLIT, 6, x, {1.0f}, 1);
    for (size_t i = 0; i < x.size(); ++i) EXPECT(std::isnan(x[i]) ? std::isnan(y[i]) : y[i] == x[i]);
    const Values z = layer_of(TILEFUSE_MLP_SPLIT, 1, {1.0f}, x, 6);
    for (size_t i = 0; i < x.size(); ++i) EXPECT(std::isnan(x[i]) ? std::isnan(z[i]) : z[i] == x[i]);
    EXPECT(std::isnan(layer_of(TILEFUSE_MLP_SPLIT, 1, {INFINITY}, {0.0f}, 1)[0]));
}

CASE(traffic) {
    for (const auto precision : {TILEFUSE_MLP_FMA, TILEFUSE_MLP_SPLIT, TILEFUSE_MLP_BFLOAT16, TILEFUSE_MLP_FLOAT16}) {
        simt::reset_counts();
        check_network(precision, {64, 200, {64, 32}}, 0);
        EXPECT(simt::counts().size() == (simt::checked ? 3 : 0));
        for (const auto& launch : simt::counts()) {
            const auto global = launch.total(false), shared = launch.total(true);
            EXPECT(shared.transfers == shared.ideal);
            EXPECT(static_cast<double>(global.transfers) <= 1.05 * static_cast<double>(global.ideal));
        }
    }
}

}  // namespace

int main(int count, char** names) { run_cases(count, names); }
