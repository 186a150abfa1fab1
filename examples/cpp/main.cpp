// A dense layer with a softmax learns which of three places a point of the plane is nearest to: forward, loss with its
// gradient, and backward, where the weights are updated in the very pass that computes their gradient.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <vector>

#include <tilefuse/tilefuse.h>

constexpr int64_t batch = 256, inputs = 2, classes = 3;

// Runs a kernel in one workspace that grows to what the largest needs.
template <class Args>
void run(tilefuse_status (*kernel)(const Args*, void*, size_t), size_t (*bytes_of)(const Args*), const Args& args) {
    static std::vector<char> workspace;
    const size_t bytes = bytes_of(&args);
    if (bytes > workspace.size()) workspace.resize(bytes);
    if (kernel(&args, workspace.data(), workspace.size()) != TILEFUSE_SUCCESS) throw std::runtime_error(tilefuse_last_error());
}

struct Layer {
    std::vector<float> x, w, b, y, dy;
    std::vector<int32_t> labels;
    std::vector<double> row_loss;

    // The mean loss; dy becomes its gradient at y = x w + b.
    double forward() {
        tilefuse_matmul_args product = {};
        product.m = batch, product.n = classes, product.k = inputs;
        product.a = x.data(), product.a_row_stride = inputs, product.a_col_stride = 1;
        product.b = w.data(), product.b_row_stride = classes, product.b_col_stride = 1;
        product.c = y.data(), product.c_row_stride = classes;
        product.epilogue.bias = b.data();
        run(tilefuse_matmul, tilefuse_matmul_workspace, product);

        tilefuse_loss_args loss = {};
        loss.loss = TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY;
        loss.from_logits = 1;
        loss.rows = batch, loss.cols = classes;
        loss.x = y.data(), loss.labels = labels.data();
        loss.scale = 1.0 / batch;
        loss.dx = dy.data(), loss.row_loss = row_loss.data();
        run(tilefuse_loss, tilefuse_loss_workspace, loss);
        double total = 0;
        for (const double of_row : row_loss) total += of_row;
        return total / batch;
    }

    // dw = x' dy, or, with a rule, the update of w and b by their gradients.
    void backward(float* dw, const tilefuse_optimizer_rule* rule) {
        tilefuse_matmul_args product = {};
        product.m = inputs, product.n = classes, product.k = batch;
        product.a = x.data(), product.a_row_stride = 1, product.a_col_stride = inputs;  // transposed
        product.b = dy.data(), product.b_row_stride = classes, product.b_col_stride = 1;
        product.c = dw, product.c_row_stride = classes;
        product.epilogue.rule = rule;
        product.epilogue.parameter.w = w.data(), product.epilogue.parameter.n = inputs * classes;
        run(tilefuse_matmul, tilefuse_matmul_workspace, product);
        if (rule == nullptr) return;

        tilefuse_column_sum_args sum = {};
        sum.m = batch, sum.n = classes;
        sum.x = dy.data();
        sum.rule = rule;
        sum.parameter.w = b.data(), sum.parameter.n = classes;
        run(tilefuse_column_sum, tilefuse_column_sum_workspace, sum);
    }
};

int main() {
    std::mt19937 random(0);
    std::uniform_real_distribution<float> uniform(-1, 1);
    Layer layer = {std::vector<float>(batch * inputs),  std::vector<float>(inputs * classes), std::vector<float>(classes),
                   std::vector<float>(batch * classes), std::vector<float>(batch * classes),  std::vector<int32_t>(batch),
                   std::vector<double>(batch)};
    const float places[classes][inputs] = {{0.0f, 0.8f}, {-0.7f, -0.4f}, {0.7f, -0.4f}};
    for (int64_t i = 0; i < batch; ++i) {
        double nearest = 1e9;
        for (int64_t j = 0; j < inputs; ++j) layer.x[i * inputs + j] = uniform(random);
        for (int32_t c = 0; c < classes; ++c) {
            const double distance = std::hypot(layer.x[i * inputs] - places[c][0], layer.x[i * inputs + 1] - places[c][1]);
            if (distance < nearest) nearest = distance, layer.labels[i] = c;
        }
    }
    for (float& weight : layer.w) weight = uniform(random);

    // The gradient at one weight, against the slope of the loss.
    std::vector<float> dw(inputs * classes);
    const double before = layer.forward();
    layer.backward(dw.data(), nullptr);
    const float weight = layer.w[1], step = 1e-2f;
    layer.w[1] = weight + step;
    const double above = layer.forward();
    layer.w[1] = weight - step;
    const double below = layer.forward(), slope = (above - below) / (2 * step);
    layer.w[1] = weight;

    tilefuse_optimizer_rule rule = {};
    rule.kind = TILEFUSE_SGD;
    rule.learning_rate = 1;
    double after = before;
    for (int epoch = 0; epoch < 500; ++epoch) {
        after = layer.forward();
        layer.backward(nullptr, &rule);
    }
    std::printf("tilefuse %d on %s: gradient %.5f, slope %.5f; loss %.4f, after training %.4f\n", tilefuse_version(), tilefuse_isa(),
                dw[1], slope, before, after);
    return std::abs(dw[1] - slope) < 1e-4 && after < 0.15 ? EXIT_SUCCESS : EXIT_FAILURE;
}
