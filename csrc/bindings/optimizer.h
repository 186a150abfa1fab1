// Optimizers as dictionaries.
#pragma once

#include <pybind11/pybind11.h>

#include "tilefuse/optimizer.h"

namespace tilefuse::bindings {

// {"kind": "sgd" | "adagrad" | "rmsprop" | "adam"} and, where it isn't to be the default, any of
// learning_rate, momentum, nesterov, rho, centered, beta_1, beta_2, epsilon, amsgrad, weight_decay,
// clipvalue, step. Other keys are left alone. Throws ValueError for an unknown kind.
tilefuse_optimizer_rule optimizer_from(const pybind11::dict& description);

// How many slots a parameter has under the rule.
int slot_count(const tilefuse_optimizer_rule& rule);

}  // namespace tilefuse::bindings
