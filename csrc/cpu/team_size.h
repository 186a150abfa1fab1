// TeamSize: how many members the team of a step that is run again and again should have. More threads than a small
// network can use, or than the machine has idle processors for, make a step slower: a member that waits for its
// processor holds up all others. Results don't depend on the size, so it may change from step to step.
#pragma once

#include <algorithm>
#include <vector>

namespace tilefuse {

// Climbs the sizes most, most / 2, most / 4, ... 1 by their measured times. (784-128-10, batch 32, two processors with
// a busy process each: 13 ms a step with two members, 0.3 with one. Without: 0.12 and 0.22.)
class TeamSize {
public:
    explicit TeamSize(int most) {
        for (int size = most; size > 0; size /= 2) sizes_.push_back(size);
    }

    int now() const { return sizes_[static_cast<size_t>(trial_)]; }
    int most() const { return sizes_.front(); }
    bool constant() const { return sizes_.size() == 1; }

    // Says how long a step with so many members took.
    void took(double seconds) {
        sum_ += seconds;
        ++steps_;
        constexpr int many = 16;
        constexpr double long_enough = 5e-3;  // seconds
        if (steps_ < many && sum_ < long_enough) return;
        const double mean = sum_ / steps_;
        sum_ = 0;
        steps_ = 0;
        if (warming_up_) {
            warming_up_ = false;
        } else if (trial_ == chosen_) {
            measured(mean);
        } else {
            tried(mean);
        }
    }

private:
    // A window of steps with the chosen size is over.
    void measured(double mean) {
        const bool changed = usual_ > 0 && mean > much * usual_;  // other programs have begun, perhaps
        usual_ = usual_ > 0 && !changed ? 0.75 * usual_ + 0.25 * mean : mean;
        if (!changed && --windows_left_ > 0) return;
        direction_ = changed ? 1 : -direction_;
        if (!exists(chosen_ + direction_)) direction_ = -direction_;
        trial_ = chosen_ + direction_;
    }

    // A window with the size on trial is over.
    void tried(double mean) {
        constexpr double better = 0.95;  // of two that are as good, the first stays
        const bool won = mean < better * usual_;
        if (won) {
            chosen_ = trial_;
            usual_ = mean;
        }
        const int longer = mean > much * usual_ ? 8 : 2;
        patience_ = won ? 1 : std::min(longer * patience_, most_patience);
        windows_left_ = patience_;
        trial_ = won && exists(chosen_ + direction_) ? chosen_ + direction_ : chosen_;
    }

    bool exists(int place) const { return place >= 0 && place < static_cast<int>(sizes_.size()); }

    static constexpr double much = 1.5;
    static constexpr int most_patience = 256;  // windows between two trials: they cost less than 1 % of the time

    std::vector<int> sizes_;
    int chosen_ = 0, trial_ = 0;     // places in sizes_
    int direction_ = -1;             // of the latest trial: 1 is to smaller sizes
    double usual_ = 0, sum_ = 0;     // seconds: a step with the chosen size; the running window
    int steps_ = 0, windows_left_ = 1, patience_ = 1;
    bool warming_up_ = true;
};

}  // namespace tilefuse
