#include "program/program.h"

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
    : spec_(std::move(spec)), batch_(batch), x_bytes_(size_of(spec_.input_shape) * spec_.item_size()),
      y_bytes_(spec_.loss ? label_bytes(spec_) : 0), output_bytes_(size_of(output_shape(spec_)) * spec_.item_size()) {
    if (spec_.optimizer) rule_ = spec_.optimizer->rule;
    ready(widest_mode(), batch_);
}

Mode Program::widest_mode() const {
    return !spec_.loss ? Mode::predict : !spec_.optimizer ? Mode::evaluate : Mode::train;
}

Program::Ready& Program::ready(Mode mode, int64_t batch) {
    if (threads_ != num_threads()) {  // how stages share out their work depends on it
        plans_.clear();
        threads_ = num_threads();
    }
    for (Ready& r : plans_)
        if (r.plan->mode == mode && r.plan->batch == batch) return r;
    constexpr size_t most_plans = 8;  // of batch sizes seen lately
    if (plans_.size() == most_plans) plans_.erase(plans_.begin());
    Ready r;
    r.plan = lower(spec_, mode, batch, threads_, &iteration, &rule_);
    for (const Stage& stage : r.plan->stages) {
        const Cost cost = std::visit([](const auto& args) { return kernels().of(args).cost(args); }, stage.args);
        r.cost.work += cost.work;
        r.cost.scratch = std::max(r.cost.scratch, cost.scratch);
        r.cost.shared = std::max(r.cost.shared, cost.shared);
    }
    plans_.push_back(std::move(r));
    return plans_.back();
}

void Program::run(Ready& ready) {
    const Kernels& table = kernels();
    const auto& stages = ready.plan->stages;
    const int members = std::min(threads_, threads_for(ready.cost.work));
    const auto run_stage = [&](Team& team, const Stage& stage) {
        if (stage.enabled) std::visit([&](const auto& args) { table.of(args).run(team, args); }, stage.args);
    };
    if (!profiling_) {
        run_team(members, ready.cost, [&](Team& team) {
            for (const Stage& stage : stages) {
                if (stage.barrier) team.barrier();
                run_stage(team, stage);
            }
        });
        return;
    }
    ready.spans.resize(stages.size() * static_cast<size_t>(threads_));
    ++ready.timed_steps;
    run_team(members, ready.cost, [&](Team& team) {
        Span* span = ready.spans.data() + stages.size() * static_cast<size_t>(team.rank);
        auto before = std::chrono::steady_clock::now();
        const auto add_to = [&](double& total) {
            const auto now = std::chrono::steady_clock::now();
            total += std::chrono::duration<double>(now - before).count();
            before = now;
        };
        for (const Stage& stage : stages) {
            if (stage.barrier) {
                team.barrier();
                add_to(span->wait);
            }
            run_stage(team, stage);
            add_to((span++)->work);
        }
    });
}

Totals Program::step(Mode mode, const Data& data, int64_t first, int64_t count, const int64_t* order_of) {
    Ready& r = ready(mode, count);
    Plan& plan = *r.plan;
    const auto row = [&](const char* base, int64_t bytes) { return base ? base + first * bytes : nullptr; };
    const bool gather = order_of != nullptr;
    if (mode == Mode::train) {
        for (int source = 0; source < 3; ++source) plan.stages[static_cast<size_t>(source)].enabled = gather;
        if (data.weight == nullptr) plan.stages[source_weight].enabled = false;
    }
    if (gather) {
        plan.bind(source_x, data.x);
        plan.bind(source_y, data.y);
        plan.bind(source_weight, data.weight);
        plan.bind(order, order_of + first);
        plan.bind(batch_x, plan.place_of(batch_x));
        plan.bind(batch_y, plan.place_of(batch_y));
        plan.bind(batch_weight, data.weight ? plan.place_of(batch_weight) : nullptr);
    } else {
        plan.bind(batch_x, row(data.x, x_bytes_));
        plan.bind(batch_y, row(data.y, y_bytes_));
        plan.bind(batch_weight, row(data.weight, spec_.item_size()));
    }
    plan.bind(predictions, row(data.predictions, output_bytes_));
    if (plan.record_stage >= 0) plan.stages[static_cast<size_t>(plan.record_stage)].enabled = data.predictions != nullptr;

    run(r);

    Totals totals;
    totals.steps = 1;
    totals.samples = count;
    if (plan.loss_rows > 0) {
        const double rows = static_cast<double>(plan.loss_rows), samples = static_cast<double>(count);
        totals.loss = (plan.loss_sum / rows + plan.penalty) * samples;
        totals.accuracy = plan.correct_sum / rows * samples;
    }
    return totals;
}

Totals Program::train_step(const Data& data, double learning_rate) {
    const std::lock_guard<std::mutex> lock(mutex_);
    rule_.learning_rate = learning_rate;
    rule_.step = static_cast<int64_t>(iteration) + 1;
    const Totals totals = step(Mode::train, data, 0, data.samples, nullptr);
    ++iteration;
    return totals;
}

Totals Program::train_epoch(const Data& data, const int64_t* order_of, int64_t batch, const double* learning_rates,
                            double interval, const Poll& poll) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Timer timer(interval);
    Totals epoch;
    for (int64_t first = 0; first < data.samples; first += batch) {
        rule_.learning_rate = learning_rates[epoch.steps];
        rule_.step = static_cast<int64_t>(iteration) + 1;
        const Totals one = step(Mode::train, data, first, std::min(batch, data.samples - first), order_of);
        ++iteration;
        epoch.steps += 1;
        epoch.samples += one.samples;
        epoch.loss += one.loss;
        epoch.accuracy += one.accuracy;
        if ((timer.due() || first + batch >= data.samples) && poll(epoch)) break;
    }
    return epoch;
}

Totals Program::each_batch(Mode mode, const Data& data, double interval, const Poll& poll) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Timer timer(interval);
    Totals all;
    const int64_t batch = std::max<int64_t>(batch_, 256);  // results don't depend on it
    for (int64_t first = 0; first < data.samples; first += batch) {
        const Totals one = step(mode, data, first, std::min(batch, data.samples - first), nullptr);
        all.steps += 1;
        all.samples += one.samples;
        all.loss += one.loss;
        all.accuracy += one.accuracy;
        if (timer.due() && poll(all)) break;
    }
    return all;
}

Totals Program::evaluate(const Data& data, double interval, const Poll& poll) {
    return each_batch(Mode::evaluate, data, interval, poll);
}

void Program::predict(const Data& data, double interval, const Poll& poll) { each_batch(Mode::predict, data, interval, poll); }

void Program::profile(bool on) {
    const std::lock_guard<std::mutex> lock(mutex_);
    profiling_ = on;
    for (Ready& r : plans_) {
        if (on) r.spans.clear(), r.timed_steps = 0;
    }
}

std::vector<StageTime> Program::timings() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Ready* timed = nullptr;
    for (const Ready& r : plans_)
        if (r.timed_steps > 0 && r.plan->mode == Mode::train && (!timed || r.plan->batch > timed->plan->batch)) timed = &r;
    std::vector<StageTime> times;
    if (timed == nullptr) return times;
    const size_t stages = timed->plan->stages.size(), members = timed->spans.size() / stages;
    const double steps = static_cast<double>(timed->timed_steps);
    for (size_t i = 0; i < stages; ++i) {
        StageTime time;
        time.text = timed->plan->stages[i].text;
        for (size_t member = 0; member < members; ++member) {
            const Span& span = timed->spans[member * stages + i];
            time.work = std::max(time.work, span.work / steps);
            time.wait += span.wait / steps / static_cast<double>(members);
        }
        times.push_back(std::move(time));
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
