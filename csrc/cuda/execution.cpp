// The steps of a program on a GPU: a step is its stages queued on a stream, one after the other. Once it has been run,
// it is captured as a graph, which later steps launch again. The host runs ahead of the device and waits for it where
// it is asked for totals.
#include <algorithm>
#include <cstring>

#include "cuda/kernels.h"
#include "cuda/memory.h"
#include "cuda/step.h"
#include "program/backend.h"

namespace tilefuse::backend {
namespace {

using namespace program;
using cuda::check;

class Stream {
public:
    Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    operator cudaStream_t() const { return stream_; }
    void wait() const { check(cudaStreamSynchronize(stream_), "running a program's steps"); }

private:
    cudaStream_t stream_ = nullptr;
};

class Event {
public:
    Event() { check(cudaEventCreate(&event_), "making an event"); }
    ~Event() {
        if (event_) cudaEventDestroy(event_);
    }
    Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
    operator cudaEvent_t() const { return event_; }

private:
    cudaEvent_t event_ = nullptr;
};

// A captured step.
class Graph {
public:
    Graph() = default;
    ~Graph() {
        if (executable_) cudaGraphExecDestroy(executable_);
    }
    Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
    Graph& operator=(Graph&& other) noexcept {
        std::swap(executable_, other.executable_);
        return *this;
    }

    explicit operator bool() const { return executable_ != nullptr; }

    template <class Queue> void capture(cudaStream_t stream, const Queue& queue) {
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a step");
        cudaGraph_t graph = nullptr;
        try {
            queue();
        } catch (...) {
            cudaStreamEndCapture(stream, &graph);
            if (graph) cudaGraphDestroy(graph);
            throw;
        }
        check(cudaStreamEndCapture(stream, &graph), "capturing a step");
        const cudaError_t error = cudaGraphInstantiate(&executable_, graph, 0);
        cudaGraphDestroy(graph);
        check(error, "making a graph of a step");
    }

    void launch(cudaStream_t stream) const { check(cudaGraphLaunch(executable_, stream), "launching a step"); }

private:
    cudaGraphExec_t executable_ = nullptr;
};

class StreamExecution : public Execution {
public:
    StreamExecution(Plan& plan, cudaStream_t stream, cuda::StepQueue* queue)
        : plan_(plan), stream_(stream), queue_(queue) {
        size_t bytes = 0;
        for (const Stage& stage : plan.stages) {
            bytes = std::max(bytes, std::visit([](const auto& args) { return cuda::workspace(args); }, stage.args));
        }
        context_ = {stream, workspace_.of(bytes)};
    }

    Plan& plan() { return plan_; }

    void run() {
        if (profiling_) {
            run_timed();
            return;
        }
        Step& step = step_as_bound();
        if (step.seen && !step.graph) step.graph.capture(stream_, [this] { queue_stages(); });
        if (step.graph) {
            step.graph.launch(stream_);
        } else {
            queue_stages();
            step.seen = true;
        }
    }

    void profile(bool on) override {
        profiling_ = on;
        if (on) seconds_.assign(plan_.stages.size(), 0), timed_steps_ = 0;
    }

    std::vector<StageTime> timings() override {
        std::vector<StageTime> times;
        if (timed_steps_ == 0) return times;
        for (size_t i = 0; i < plan_.stages.size(); ++i) {
            StageTime time;
            time.text = plan_.stages[i].text;
            time.work = seconds_[i] / static_cast<double>(timed_steps_);
            times.push_back(std::move(time));
        }
        return times;
    }

private:
    // A step with certain stages enabled and certain addresses bound. It is captured when it comes for the second time:
    // some never do.
    struct Step {
        std::vector<bool> enabled;
        const void* bound[input_count];
        bool seen = false;
        Graph graph;
    };

    Step& step_as_bound() {
        const auto same = [this](const Step& step) {
            if (!std::equal(std::begin(step.bound), std::end(step.bound), std::begin(plan_.bound))) return false;
            for (size_t i = 0; i < plan_.stages.size(); ++i)
                if (step.enabled[i] != plan_.stages[i].enabled) return false;
            return true;
        };
        for (Step& step : steps_)
            if (same(step)) return step;
        // With and without weights and predictions. (Where nothing is gathered each batch binds other addresses, and a
        // step seldom comes again: evaluation and prediction don't gain from graphs.)
        constexpr size_t most_steps = 4;
        if (steps_.size() == most_steps) steps_.erase(steps_.begin());
        Step& step = steps_.emplace_back();
        for (const Stage& stage : plan_.stages) step.enabled.push_back(stage.enabled);
        std::copy(std::begin(plan_.bound), std::end(plan_.bound), std::begin(step.bound));
        return step;
    }

    void queue_stage(const Stage& stage) {
        if (!stage.enabled) return;
        try {
            std::visit([this](const auto& args) { cuda::queue(context_, args); }, stage.args);
        } catch (const std::runtime_error& error) {
            throw std::runtime_error("stage '" + stage.text + "': " + error.what());
        }
    }

    void queue_stages() {
        for (const Stage& stage : plan_.stages) queue_stage(stage);
        cuda::next_step(stream_, queue_, plan_.batch, plan_.loss_rows);
    }

    // Stage by stage with an event after each; waits for the step's end.
    void run_timed() {
        events_.resize(plan_.stages.size() + 1);
        size_t next = 0;
        const auto record = [&] { check(cudaEventRecord(events_[next++], stream_), "timing a stage"); };
        record();
        for (const Stage& stage : plan_.stages) {
            queue_stage(stage);
            record();
        }
        check(cudaEventSynchronize(events_.back()), "timing a step");
        for (size_t i = 0; i < plan_.stages.size(); ++i) {
            float milliseconds = 0;
            check(cudaEventElapsedTime(&milliseconds, events_[i], events_[i + 1]), "timing a stage");
            seconds_[i] += 1e-3 * static_cast<double>(milliseconds);
        }
        ++timed_steps_;
        cuda::next_step(stream_, queue_, plan_.batch, plan_.loss_rows);
    }

    Plan& plan_;
    const cudaStream_t stream_;
    cuda::StepQueue* const queue_;
    cuda::Memory workspace_;
    cuda::Context context_;
    std::vector<Step> steps_;
    bool profiling_ = false;
    std::vector<Event> events_;
    std::vector<double> seconds_;  // of each stage
    int64_t timed_steps_ = 0;
};

class StreamRunner : public Runner {
public:
    explicit StreamRunner(const tilefuse_optimizer_rule& rule)
        : queue_(static_cast<cuda::StepQueue*>(queue_memory_.of(sizeof(cuda::StepQueue)))) {
        start_.step.rule = rule;
    }
    ~StreamRunner() override { cudaStreamSynchronize(stream_); }

    StepState* state() override { return &queue_->step; }

    void* allocate(size_t bytes) override {
        const cuda::DeviceScope scope(device_);
        return cuda::allocated([bytes](void** memory) { return cudaMalloc(memory, bytes); });
    }

    std::unique_ptr<Execution> prepare(Plan& plan) override {
        const cuda::DeviceScope scope(device_);
        return std::make_unique<StreamExecution>(plan, stream_, queue_);
    }

    void begin(const Run& run) override {
        run_ = run;
        data_ = {};
        placed_ = false;  // until the first step's plan tells how large a sample is
        steps_asked_ = 0;
    }

    void step(Execution& execution, int64_t first) override {
        const cuda::DeviceScope scope(device_);
        StreamExecution& e = static_cast<StreamExecution&>(execution);
        Plan& plan = e.plan();
        if (!placed_) place(plan);
        if (std::exchange(rates_may_differ_, false)) update_rates(steps_asked_);
        ++steps_asked_;
        if (run_.training) {
            plan.gather(data_, start_.batch_order);
            const bool predicts = data_.predictions != nullptr;
            plan.predict_to(predicts ? to<char>(batch_predictions_, plan, predictions, run_.batch) : nullptr, 0);
        } else {
            plan.feed(data_, first);
            plan.predict_to(data_.predictions, first);
        }
        e.run();
        const int64_t row = plan.row_bytes[predictions];
        predictions_bytes_ = static_cast<size_t>((first + plan.batch) * row);
        if (run_.training && data_.predictions) {
            check(cudaMemcpyAsync(data_.predictions + first * row, plan.bound[predictions],
                                  static_cast<size_t>(plan.batch * row), cudaMemcpyDeviceToDevice, stream_),
                  "copying a batch's predictions");
        }
    }

    Totals totals() override {
        if (!placed_) return {};
        const cuda::DeviceScope scope(device_);
        cuda::StepQueue now;
        check(cudaMemcpyAsync(&now, queue_, sizeof now, cudaMemcpyDeviceToHost, stream_), "copying totals");
        stream_.wait();
        rates_may_differ_ = run_.training;
        return {now.steps, now.position, now.loss, now.accuracy};
    }

    void finish() override {
        if (!placed_ || data_.predictions == run_.data.predictions) return;
        const cuda::DeviceScope scope(device_);
        check(cudaMemcpyAsync(run_.data.predictions, data_.predictions, predictions_bytes_, cudaMemcpyDeviceToHost,
                              stream_),
              "copying predictions");
        stream_.wait();
    }

private:
    template <class V> V* to(cuda::Memory& memory, const Plan& plan, Input input, int64_t rows) {
        return static_cast<V*>(memory.of(static_cast<size_t>(rows * plan.row_bytes[input])));
    }

    // The data where kernels can use them: their own place, or a copy.
    const char* placed(cuda::Memory& memory, const Plan& plan, Input input, const char* data) {
        if (data == nullptr || owns(data)) return data;
        char* copy = to<char>(memory, plan, input, run_.data.samples);
        upload(copy, data, run_.data.samples * plan.row_bytes[input]);
        return copy;
    }

    void upload(void* to, const void* from, int64_t bytes) {
        const size_t size = static_cast<size_t>(bytes);
        check(cudaMemcpyAsync(to, from, size, cudaMemcpyHostToDevice, stream_), "copying a run's data");
    }

    // Everything that the run's steps need goes to the device, once.
    void place(const Plan& plan) {
        placed_ = true;
        rates_may_differ_ = false;
        const int64_t samples = run_.data.samples, steps = (samples + run_.batch - 1) / run_.batch;
        data_ = run_.data;
        data_.x = placed(x_, plan, source_x, run_.data.x);
        data_.y = placed(y_, plan, source_y, run_.data.y);
        data_.weight = placed(weight_, plan, source_weight, run_.data.weight);
        if (run_.data.predictions && !owns(run_.data.predictions)) {
            data_.predictions = to<char>(predictions_, plan, predictions, samples);
        }
        start_.training = run_.training;
        start_.samples = samples;
        start_.batch = run_.batch;
        start_.step.iteration = run_.iteration;
        start_.order = nullptr;
        if (run_.training) {
            if (run_.order) {
                start_.order = reinterpret_cast<const int64_t*>(
                    placed(order_, plan, Input::order, reinterpret_cast<const char*>(run_.order)));
            }
            start_.batch_order = to<int64_t>(batch_order_, plan, Input::order, run_.batch);
            rates_.assign(run_.learning_rates, run_.learning_rates + steps);
            start_.learning_rates = static_cast<const double*>(rates_memory_.of(rates_.size() * sizeof(double)));
            upload_rates(0);
        }
        upload(queue_, &start_, sizeof start_);
        cuda::next_step(stream_, queue_, 0, 0);
    }

    // After the host has seen totals it may have changed the rates to come.
    void update_rates(int64_t done) {
        if (std::equal(rates_.begin() + done, rates_.end(), run_.learning_rates + done)) return;
        std::copy(run_.learning_rates + done, run_.learning_rates + rates_.size(), rates_.begin() + done);
        upload_rates(done);
        cuda::next_step(stream_, queue_, 0, 0);
    }

    void upload_rates(int64_t first) {
        upload(const_cast<double*>(start_.learning_rates) + first, rates_.data() + first,
               static_cast<int64_t>(rates_.size() - static_cast<size_t>(first)) * static_cast<int64_t>(sizeof(double)));
    }

    const int device_ = cuda::device_in_use();
    const Stream stream_;
    cuda::Memory queue_memory_;
    cuda::StepQueue* const queue_;
    cuda::StepQueue start_ = {};  // of a run, as it goes to the device

    Run run_;
    Data data_;  // the run's, on the device
    bool placed_ = false;
    int64_t steps_asked_ = 0;  // of the run
    bool rates_may_differ_ = false;
    std::vector<double> rates_;
    size_t predictions_bytes_ = 0;  // made so far
    cuda::Memory x_, y_, weight_, order_, rates_memory_, batch_order_, predictions_, batch_predictions_;
};

}  // namespace

std::unique_ptr<Runner> make_runner(const tilefuse_optimizer_rule& rule) {
    const cuda::DeviceScope scope(cuda::device_in_use());
    return std::make_unique<StreamRunner>(rule);
}

}  // namespace tilefuse::backend
