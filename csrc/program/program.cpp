#include "program/program.h"

#include <algorithm>
#include <chrono>

namespace tilefuse::program {
namespace {

class Timer {
public:
    explicit Timer(double interval) : interval_(interval) {}

    bool due() {
        const auto now = std::chrono::steady_clock::now();
        if (std::chrono::duration<double>(now - last_).count() < interval_) return false;
        last_ = now;
        return true;
    }

private:
    const double interval_;
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

Program::Program(Spec spec, int64_t batch)
    : spec_(std::move(spec)), batch_(batch),
      runner_(backend::make_runner(spec_.optimizer ? spec_.optimizer->rule : tilefuse_optimizer_rule{})) {
    ready(widest_mode(), batch_);
}

Mode Program::widest_mode() const {
    return !spec_.loss ? Mode::predict : !spec_.optimizer ? Mode::evaluate : Mode::train;
}

Program::Ready& Program::ready(Mode mode, int64_t batch) {
    if (const Machine now = backend::machine(); machine_ != now) {  // plans depend on it
        plans_.clear();
        machine_ = now;
    }
    for (Ready& r : plans_)
        if (r.plan->mode == mode && r.plan->batch == batch) return r;
    constexpr size_t most_plans = 8;  // of batch sizes seen lately
    if (plans_.size() == most_plans) plans_.erase(plans_.begin());
    Ready r;
    r.plan = lower(spec_, mode, batch, machine_, runner_->state());
    r.plan->lie_at(runner_->allocate(static_cast<size_t>(std::max<int64_t>(64, r.plan->arena_bytes))));
    r.execution = runner_->prepare(*r.plan);
    r.execution->profile(profiling_);
    plans_.push_back(std::move(r));
    return plans_.back();
}

Totals Program::run(Mode mode, Run steps, double interval, const Poll& poll) {
    const std::lock_guard<std::mutex> lock(mutex_);
    steps.training = mode == Mode::train;
    steps.iteration = iteration;
    runner_->begin(steps);
    Timer timer(interval);
    const int64_t samples = steps.data.samples;
    for (int64_t first = 0; first < samples; first += steps.batch) {
        runner_->step(*ready(mode, std::min(steps.batch, samples - first)).execution, first);
        iteration += steps.training;
        const bool last = first + steps.batch >= samples;
        if (poll && (timer.due() || last) && poll(runner_->totals())) break;
    }
    runner_->finish();
    return runner_->totals();
}

Totals Program::train_step(const Data& data, double learning_rate) {
    Run steps;
    steps.data = data;
    steps.batch = data.samples;
    steps.learning_rates = &learning_rate;
    return run(Mode::train, steps, 0, nullptr);
}

Totals Program::train_epoch(const Data& data, const int64_t* order, int64_t batch, const double* learning_rates,
                            double interval, const Poll& poll) {
    Run steps;
    steps.data = data;
    steps.order = order;
    steps.batch = batch;
    steps.learning_rates = learning_rates;
    return run(Mode::train, steps, interval, poll);
}

Totals Program::in_order(Mode mode, const Data& data, double interval, const Poll& poll) {
    Run steps;
    steps.data = data;
    constexpr int64_t samples = 256, arena = 32 << 20;  // bytes; results don't depend on it
    const int64_t fit = arena / std::max<int64_t>(1, bytes() / batch_);
    steps.batch = std::clamp<int64_t>(samples, std::min(batch_, fit), std::max({batch_, fit, int64_t{1}}));
    return run(mode, steps, interval, poll);
}

Totals Program::evaluate(const Data& data, double interval, const Poll& poll) {
    return in_order(Mode::evaluate, data, interval, poll);
}

void Program::predict(const Data& data, double interval, const Poll& poll) {
    in_order(Mode::predict, data, interval, poll);
}

void Program::profile(bool on) {
    const std::lock_guard<std::mutex> lock(mutex_);
    profiling_ = on;
    for (Ready& r : plans_) r.execution->profile(on);
}

std::vector<StageTime> Program::timings() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<StageTime> times;
    int64_t largest = 0;
    for (Ready& r : plans_) {
        if (r.plan->mode != Mode::train || r.plan->batch <= largest) continue;
        std::vector<StageTime> of_plan = r.execution->timings();
        if (of_plan.empty()) continue;
        times = std::move(of_plan);
        largest = r.plan->batch;
    }
    return times;
}

int64_t Program::bytes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ready(widest_mode(), batch_).plan->arena_bytes;
}

std::vector<std::string> Program::stages() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> texts;
    for (const Stage& stage : ready(widest_mode(), batch_).plan->stages) texts.push_back(stage.text);
    return texts;
}

std::string Program::describe() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return program::describe(spec_, *ready(widest_mode(), batch_).plan);
}

}  // namespace tilefuse::program
