// The steps of a program on the CPU: a step is one team that goes through all stages, with barriers where the plan has
// them.
#include <algorithm>
#include <chrono>

#include "cpu/kernels.h"
#include "cpu/team_size.h"
#include "program/backend.h"

namespace tilefuse::backend {
namespace {

using namespace program;

class TeamExecution : public Execution {
public:
    explicit TeamExecution(Plan& plan) : plan_(plan), threads_(num_threads()) {
        for (const Stage& stage : plan.stages) {
            const Cost cost = std::visit([](const auto& args) { return kernels().of(args).cost(args); }, stage.args);
            cost_.work += cost.work;
            cost_.scratch = std::max(cost_.scratch, cost.scratch);
            cost_.shared = std::max(cost_.shared, cost.shared);
        }
        size_ = TeamSize(std::min(threads_, threads_for(cost_.work)));
    }

    Plan& plan() { return plan_; }

    void run() {
        const Kernels& table = kernels();
        const auto& stages = plan_.stages;
        const auto run_stage = [&](Team& team, const Stage& stage) {
            if (stage.enabled) std::visit([&](const auto& args) { table.of(args).run(team, args); }, stage.args);
        };
        if (!profiling_) {
            const auto run = [&](Team& team) {
                for (const Stage& stage : stages) {
                    if (stage.barrier) team.barrier();
                    run_stage(team, stage);
                }
            };
            if (size_.constant()) {
                run_team(size_.now(), cost_, run);
                return;
            }
            const auto start = std::chrono::steady_clock::now();
            run_team(size_.now(), cost_, run);
            size_.took(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
            return;
        }
        spans_.resize(stages.size() * static_cast<size_t>(threads_));
        ++timed_steps_;
        run_team(size_.most(), cost_, [&](Team& team) {
            Span* span = spans_.data() + stages.size() * static_cast<size_t>(team.rank);
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

    void profile(bool on) override {
        profiling_ = on;
        if (on) spans_.clear(), timed_steps_ = 0;
    }

    std::vector<StageTime> timings() override {
        std::vector<StageTime> times;
        if (timed_steps_ == 0) return times;
        const size_t stages = plan_.stages.size(), members = spans_.size() / stages;
        const double steps = static_cast<double>(timed_steps_);
        for (size_t i = 0; i < stages; ++i) {
            StageTime time;
            time.text = plan_.stages[i].text;
            for (size_t member = 0; member < members; ++member) {
                const Span& span = spans_[member * stages + i];
                time.work = std::max(time.work, span.work / steps);
                time.wait += span.wait / steps / static_cast<double>(members);
            }
            times.push_back(std::move(time));
        }
        return times;
    }

private:
    struct Span {
        double work = 0, wait = 0;
    };

    Plan& plan_;
    const int threads_;
    Cost cost_;
    TeamSize size_{1};
    bool profiling_ = false;
    std::vector<Span> spans_;  // [member, stage], where profiling
    int64_t timed_steps_ = 0;
};

// Each step is done when `step` returns.
class TeamRunner : public Runner {
public:
    explicit TeamRunner(const tilefuse_optimizer_rule& rule) { state_.rule = rule; }

    StepState* state() override { return &state_; }
    void* allocate(size_t bytes) override { return backend::allocate(bytes); }
    std::unique_ptr<Execution> prepare(Plan& plan) override { return std::make_unique<TeamExecution>(plan); }

    void begin(const Run& run) override {
        run_ = run;
        totals_ = {};
        state_.iteration = run.iteration;
    }

    void step(Execution& execution, int64_t first) override {
        TeamExecution& e = static_cast<TeamExecution&>(execution);
        Plan& plan = e.plan();
        if (run_.order != nullptr) {
            plan.gather(run_.data, run_.order + first);
        } else {
            plan.feed(run_.data, first);
        }
        plan.predict_to(run_.data.predictions, first);
        if (run_.training) {
            state_.rule.learning_rate = run_.learning_rates[totals_.steps];
            state_.rule.step = static_cast<int64_t>(state_.iteration) + 1;
        }
        e.run();
        state_.iteration += run_.training;
        totals_.steps += 1;
        totals_.samples += plan.batch;
        if (plan.loss_rows > 0) {
            const double rows = static_cast<double>(plan.loss_rows), samples = static_cast<double>(plan.batch);
            totals_.loss += (state_.loss_sum / rows + state_.penalty) * samples;
            totals_.accuracy += state_.correct_sum / rows * samples;
        }
    }

    Totals totals() override { return totals_; }
    void finish() override {}

private:
    StepState state_;
    Run run_;
    Totals totals_;
};

}  // namespace

Machine machine() { return {.members = num_threads(), .networks = {}}; }

std::unique_ptr<Runner> make_runner(const tilefuse_optimizer_rule& rule) { return std::make_unique<TeamRunner>(rule); }

}  // namespace tilefuse::backend
